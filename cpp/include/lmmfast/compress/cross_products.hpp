// Sums of A'A over rows that lie in lanes: as packs, or as matrix products where there are many columns.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "lmmfast/engines/moments/pack_triangle.hpp"

namespace lmmfast::detail {

class CrossProducts {
  public:
    // The last `n_single` columns are multiplied with the others and themselves, not with each other.
    explicit CrossProducts(int p1, int n_single = 0)
        : p1_(p1),
          n_dense_(p1 - n_single),
          sums_(as_products() ? 0 : static_cast<std::size_t>(p1) * p1, Pack::zero()),
          products_(as_products() ? Eigen::MatrixXd::Zero(p1, p1) : Eigen::MatrixXd()) {}

    bool as_products() const { return p1_ > 12 || n_dense_ < p1_; }

    // The sum for columns j >= k, if not kept as products.
    Pack& sum(int j, int k) { return sums_[static_cast<std::size_t>(j) * p1_ + k]; }

    // n rows of eight lanes, `step` apart: column j stands at A[j * lanes].
    void add_lanes(const double* A, int n, int step) {
        with_fixed_size<max_fixed_p1>(p1_, [&](auto P1) {
            for (int g = 0; g < lanes; g += Pack::size)
                PackTriangle<P1.value>::add(sums_.data(), p1_, RowInLanes{A + g}, n, step);
        });
    }
    // n numbers of each column, kept as products: column j stands at A[j * n].
    void add_panel(const double* A, int n) {
        using Panel =
            Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
        const Panel panel(A, p1_, n);
        if (n_dense_ == p1_) {
            products_.selfadjointView<Eigen::Lower>().rankUpdate(panel);
            return;
        }
        products_.leftCols(n_dense_).noalias() += panel * panel.topRows(n_dense_).transpose();
        products_.diagonal().tail(p1_ - n_dense_) += panel.bottomRows(p1_ - n_dense_).rowwise().squaredNorm();
    }

    void write(std::vector<double>& out) const {
        out.assign(static_cast<std::size_t>(p1_) * p1_, 0.0);
        for (int j = 0; j < p1_; ++j)
            for (int k = 0; k <= j; ++k) {
                const double sum_jk = as_products() ? products_(j, k) : sums_[j * p1_ + k].sum();
                out[j * p1_ + k] = out[k * p1_ + j] = sum_jk;
            }
    }

  private:
    struct RowInLanes {
        const double* A;
        static constexpr bool both_ways = false;
        Pack left(int at, int j) const { return Pack::load(A + at + j * lanes); }
        Pack right(int at, int k) const { return left(at, k); }
    };

    int p1_, n_dense_;
    std::vector<Pack> sums_;
    Eigen::MatrixXd products_;
};

}  // namespace lmmfast::detail
