// Many rows -> few rows with the same cross-products: the triangular factor of their QR decomposition.
#pragma once

#include <Eigen/Core>
#include <Eigen/QR>
#include <algorithm>
#include <vector>

#include "lmmfast/base/packs.hpp"

namespace lmmfast::detail {

using ColumnMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic>;

// R (min(n, k), k) of rows (n, k), by Householder reflections; the rows are used up.
inline ColumnMajor triangle_of(Eigen::Ref<ColumnMajor> rows) {
    const Eigen::HouseholderQR<Eigen::Ref<ColumnMajor>> qr(rows);
    return qr.matrixQR().topRows(std::min(rows.rows(), rows.cols())).template triangularView<Eigen::Upper>();
}

// Rows in a stream, eight strands of them side by side, for small k. Each strand is reduced tile after
// tile with its R on top of the next, by modified Gram-Schmidt: that gives R as accurately as
// reflections do, whatever the rank (Björck and Paige 1992).
class TriangleInLanes {
    static constexpr int new_rows = 48;

  public:
    static constexpr int max_k = 32;

    explicit TriangleInLanes(int k)
        : k_(k),
          values_(static_cast<std::size_t>(k) * (k + new_rows) * packs_per_block, Pack::zero()),
          triangle_(static_cast<std::size_t>(k) * k) {}

    // Where the next row of pack g of strands goes: its entry j is at [j * stride()].
    Pack* row(int g) { return column(0, g) + k_ + used_; }
    int stride() const { return rows() * packs_per_block; }
    void next_row() {
        if (++used_ == new_rows) reduce();
    }

    // The factor of the rows of all strands, (k, k)
    ColumnMajor finish() {
        if (used_ > 0) reduce();
        ColumnMajor stacked(k_ * lanes, k_);
        for (int j = 0; j < k_; ++j)
            for (int g = 0; g < packs_per_block; ++g)
                for (int i = 0; i < k_; ++i)
                    Eigen::internal::pstoreu(&stacked(i * lanes + g * Pack::size, j), column(j, g)[i].v);
        return triangle_of(stacked);
    }

  private:
    int rows() const { return k_ + new_rows; }
    Pack* column(int j, int g) {
        return &values_[static_cast<std::size_t>(j * packs_per_block + g) * rows()];
    }
    void reduce() {
        for (int g = 0; g < packs_per_block; ++g) reduce_pack(g, k_ + used_);
        used_ = 0;
    }
    // Row a of the new R takes the place of row a of the old one in the columns from a on; there nothing
    // but the new R is left at the end. Rows of the old R below the diagonal are zero.
    void reduce_pack(int g, int n) {
        Pack R[max_k];
        for (int a = 0; a < k_; ++a) {
            Pack* z = column(a, g);
            const Pack r = dot(z, z, n).sqrt(), r_inv = inverse_or_zero(r);
            for (int i = 0; i < n; ++i) z[i] *= r_inv;
            for (int j = a + 1; j < k_; ++j) {
                Pack* x = column(j, g);
                R[j] = dot(z, x, n);
                const Pack minus = -R[j];
                for (int i = 0; i < n; ++i) x[i] = multiply_add(z[i], minus, x[i]);
            }
            R[a] = r;
            for (int j = a; j < k_; ++j) triangle_[j * k_ + a] = R[j];
        }
        for (int j = 0; j < k_; ++j) {
            Pack* x = column(j, g);
            for (int i = 0; i < k_; ++i) x[i] = i <= j ? triangle_[j * k_ + i] : Pack::zero();
        }
    }
    static Pack dot(const Pack* a, const Pack* b, int n) {
        Pack even = Pack::zero(), odd = Pack::zero();
        int i = 0;
        for (; i + 1 < n; i += 2) {
            even = multiply_add(a[i], b[i], even);
            odd = multiply_add(a[i + 1], b[i + 1], odd);
        }
        if (i < n) even = multiply_add(a[i], b[i], even);
        return even + odd;
    }
    static Pack inverse_or_zero(Pack r) {
        const Pack positive{Eigen::internal::pcmp_lt(Pack::zero().v, r.v)};
        return {Eigen::internal::pand(positive.v, r.inverse().v)};
    }

    int k_, used_ = 0;
    std::vector<Pack> values_, triangle_;
};

}  // namespace lmmfast::detail
