// [Z A] of a cluster, whitened by R and with the span of Z split off (docs/markov.md, M10).
#pragma once

#include <algorithm>
#include <cmath>

#include "lmmfast/base/aligned.hpp"
#include "lmmfast/base/small_matrix.hpp"
#include "lmmfast/engines/markov/panels.hpp"

namespace lmmfast {

// With R = L L': L^-1 Z = Q R_Z (thin QR), L^-1 A = Q Q'L^-1A + A_perp. The columns kept are
// Y = [Q A_perp] (n_i, q + p1), in panels of eight.
class WhitenedRows {
  public:
    WhitenedRows(int q, int p1, Index longest)
        : R_Z(RowMatrix::Zero(q, q)),
          QA(RowMatrix::Zero(q, p1)),
          q_(q),
          p1_(p1),
          stride_(longest * lanes),
          data_(static_cast<std::size_t>(n_panels() * stride_)),
          products_(static_cast<std::size_t>(lanes * (n_panels() + 1) * lanes)) {
        std::fill_n(data_.data(), data_.size(), 0.0);  // columns beyond the last stay zero
    }

    RowMatrix R_Z, QA;  // (q, q), (q, p1)

    int n_columns() const { return q_ + p1_; }
    int n_panels() const { return (n_columns() + lanes - 1) / lanes; }
    int columns_of(int panel) const { return std::min(lanes, n_columns() - panel * lanes); }
    const double* panel(int k) const { return data_.data() + k * stride_; }

    void whiten(const MarkovRows& rows, Index i, const MarkovFilter& filter) {
        read(rows, i, filter.steps());
        for (int k = 0; k < n_panels(); ++k) detail::whiten(filter.steps(), filter.n_i(), own(k));
        for (int a = 0; a < q_; ++a) split_off(a, filter.n_i());
    }

  private:
    int q_, p1_;
    Index stride_;
    AlignedDoubles data_;      // (n_panels, longest, 8)
    AlignedDoubles products_;  // (n_panels, 8), and place for the rows that a product may write

    double* own(int k) { return data_.data() + k * stride_; }

    void read(const MarkovRows& rows, Index i, const MarkovStep* steps) {
        const Index n = rows.n_i(i);
        const double* Z = rows.Z + rows.ptr[i] * q_;
        const double* A = rows.A + rows.ptr[i] * p1_;
        for (Index j = 0; j < n; ++j) {
            const auto place = [&](int column) -> double& {
                return own(column / lanes)[j * lanes + column % lanes];
            };
            for (int a = 0; a < q_; ++a) place(a) = steps[j].scale * Z[j * q_ + a];
            for (int b = 0; b < p1_; ++b) place(q_ + b) = steps[j].scale * A[j * p1_ + b];
        }
    }

    // One step of modified Gram-Schmidt. A column of which nothing is left beside the earlier ones becomes
    // zero, with its row of R_Z and QA.
    void split_off(int a, Index n) {
        constexpr double negligible = 1e-13;
        const int home = a / lanes;
        const double* column = own(home) + a % lanes;
        double* products = products_.data();  // of column a with columns 8 home, …
        for (int k = home; k < n_panels(); ++k)
            detail::multiply_columns<1>(column, own(k), n, products + (k - home) * lanes);
        const double square = products[a - home * lanes];
        const double before = square + R_Z.col(a).head(a).squaredNorm();
        const bool is_zero = !(square > negligible * negligible * before);
        const double inv = is_zero ? 0.0 : 1 / std::sqrt(square);
        const auto coefficient = [&](int b) { return inv * products[b - home * lanes]; };
        for (int b = a; b < q_; ++b) R_Z(a, b) = coefficient(b);
        for (int b = 0; b < p1_; ++b) QA(a, b) = coefficient(q_ + b);
        for (int b = home * lanes; b < n_panels() * lanes; ++b)
            products[b - home * lanes] = b > a ? coefficient(b) : 0.0;
        for (int k = home; k < n_panels(); ++k)
            subtract(a, k == home ? inv : 1.0, products + (k - home) * lanes, n, own(k), k == home);
    }

    // panel <- panel - (inv column a) coefficients', after which column a itself is scaled, in its panel.
    void subtract(int a, double inv, const double* coefficients, Index n, double* panel, bool is_home) {
        const double* column = own(a / lanes) + a % lanes;
        const auto t = detail::PanelRow::load(coefficients);
        for (Index j = 0; j < n; ++j) {
            const double Q_ja = inv * column[j * lanes];
            auto row = detail::PanelRow::load(panel + j * lanes);
            multiply_add(-Q_ja, t, row).store(panel + j * lanes);
            if (is_home) panel[j * lanes + a % lanes] = Q_ja;
        }
    }
};

}  // namespace lmmfast
