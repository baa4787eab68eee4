// Thin QR of a few columns by modified Gram-Schmidt, which solves least squares as accurately as
// Householder reflections do (Björck 1967).
#pragma once

#include <Eigen/Core>
#include <vector>

#include "lmmfast/base/lanes.hpp"

namespace lmmfast {

// Columns of which less than this part lies beyond the earlier ones are dependent (lme4's limit).
inline constexpr double dependent_part = 1e-7;

// Q (n, k), R (k, k) upper triangular; a column that the earlier ones determine is left out of Q (zero).
struct Orthogonal {
    Eigen::MatrixXd Q, R;
    Eigen::VectorXd size, rest;  // (k,): length of each column; part of it that lies beyond the earlier ones

    // Of the columns `used` of X.
    template <class Columns>
    void factorise(const Columns& X, const std::vector<int>& used) {
        const Index k = static_cast<Index>(used.size());
        Q.resize(X.rows(), k);
        R.setZero(k, k);
        size.resize(k);
        rest.resize(k);
        for (Index j = 0; j < k; ++j) {
            Q.col(j) = X.col(used[static_cast<std::size_t>(j)]);
            size[j] = Q.col(j).norm();
        }
        for (Index j = 0; j < k; ++j) {
            const double length = Q.col(j).norm();
            rest[j] = size[j] > 0 ? length / size[j] : 0.0;
            if (!(rest[j] > dependent_part)) {
                Q.col(j).setZero();
                continue;
            }
            R(j, j) = length;
            Q.col(j) *= 1.0 / length;
            for (Index l = j + 1; l < k; ++l) {
                R(j, l) = Q.col(j).dot(Q.col(l));
                Q.col(l) -= R(j, l) * Q.col(j);
            }
        }
    }

    bool independent(Index j) const { return R(j, j) > 0; }
    double smallest_rest() const { return rest.size() ? rest.minCoeff() : 1.0; }

    // Least squares coefficients of r (n,), zero for dependent columns; r becomes the residual.
    Eigen::VectorXd solve(Eigen::VectorXd& r) const {
        Eigen::VectorXd c(Q.cols());
        for (Index j = 0; j < c.size(); ++j) {
            c[j] = Q.col(j).dot(r);
            r -= c[j] * Q.col(j);
        }
        for (Index j = c.size(); j-- > 0;) {
            c[j] = independent(j) ? c[j] / R(j, j) : 0.0;
            for (Index i = 0; i < j; ++i) c[i] -= R(i, j) * c[j];
        }
        return c;
    }
};

}  // namespace lmmfast
