// Which columns of X no earlier ones determine, and least squares on them, from cross-products.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <vector>

#include "lmmfast/base/orthogonal.hpp"
#include "lmmfast/rows/basis.hpp"

namespace lmmfast {

// Columns in the order in which they were taken, and the root L (k, k) of their X'X = L L'.
struct IndependentColumns {
    std::vector<int> taken;
    Eigen::MatrixXd root;

    std::vector<int> sorted() const {
        std::vector<int> keep = taken;
        std::sort(keep.begin(), keep.end());
        return keep;
    }
};

// Those that make up the constant come first. A column goes when less than a part of 1e-12 of its sum
// of squares lies beyond the kept ones; of columns that the basis has mixed less than dependent_part^2
// of what they were before. `gram` (p + 1, p + 1) holds cross-products of [X y] in the working basis.
template <class Gram>
IndependentColumns independent_columns(const Gram& gram, const Basis& basis) {
    const int p = basis.p();
    std::vector<int> order;
    const auto in_unit = [&](int j) { return basis.unit.size() > 0 && basis.unit[j] != 0.0; };
    for (int j = 0; j < p; ++j)
        if (in_unit(j)) order.push_back(j);
    for (int j = 0; j < p; ++j)
        if (!in_unit(j) && !basis.is_excluded(j)) order.push_back(j);

    IndependentColumns out;
    out.root = Eigen::MatrixXd::Zero(p, p);
    Eigen::VectorXd row(p);
    for (const int j : order) {
        const double size = gram(j, j);
        if (!(size > 0)) continue;
        const double length = std::sqrt(size);
        const Index k = static_cast<Index>(out.taken.size());
        double rest = 1.0;
        for (Index i = 0; i < k; ++i) {
            const double scaled = gram(j, out.taken[static_cast<std::size_t>(i)]) / length;
            row[i] = (scaled - out.root.row(i).head(i).dot(row.head(i))) / out.root(i, i);
            rest -= row[i] * row[i];
        }
        const double growth = basis.x_mix.size() ? basis.x_mix(j, j) : 1.0;
        const double limit = growth > 1 ? std::pow(dependent_part * growth, 2) : 1e-12;
        if (!(rest > limit)) continue;
        out.root.row(k).head(k) = row.head(k) * length;
        out.root(k, k) = std::sqrt(rest) * length;
        out.taken.push_back(j);
    }
    const Index k = static_cast<Index>(out.taken.size());
    out.root.conservativeResize(k, k);
    return out;
}

// The response on the independent columns.
struct Regression {
    Eigen::VectorXd beta;    // (k,) in the order in which the columns were taken
    double explained = 0.0;  // part of y'y that X explains
    double residual_sum = 0.0;
};

template <class Gram>
Regression regress(const Gram& gram, const IndependentColumns& columns) {
    const Index k = static_cast<Index>(columns.taken.size()), y = gram.rows() - 1;
    Regression out;
    out.beta.resize(k);
    for (Index i = 0; i < k; ++i) out.beta[i] = gram(y, columns.taken[static_cast<std::size_t>(i)]);
    columns.root.triangularView<Eigen::Lower>().solveInPlace(out.beta);
    const double sum = out.beta.squaredNorm();
    out.explained = gram(y, y) > 0 ? sum / gram(y, y) : 0.0;
    out.residual_sum = gram(y, y) - sum;
    columns.root.triangularView<Eigen::Lower>().transpose().solveInPlace(out.beta);
    return out;
}

}  // namespace lmmfast
