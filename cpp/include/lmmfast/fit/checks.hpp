// Can a model be fitted to these data? Numbers only; who says what is wrong has the names.
#pragma once

#include <Eigen/Eigenvalues>
#include <limits>

#include "lmmfast/rows/independent.hpp"

namespace lmmfast {

enum class FitStatus {
    fitted,
    single_cluster,
    not_finite,      // a number, or a sum of squares
    bad_weights,     // a weight is not positive
    rank_deficient,  // a column of X is determined by the others
    too_few_rows,    // not more rows than fixed effects
    exact_response,  // fixed effects fit the response exactly
    exact_within,    // fixed and random effects together do
    not_identified,  // the data cannot tell variance parameters apart
    not_converged,
    out_of_range,  // estimates exceed the range of double precision
};

inline const char* describe(FitStatus status) {
    switch (status) {
        case FitStatus::fitted:
            return "fitted";
        case FitStatus::single_cluster:
            return "there is a single cluster";
        case FitStatus::not_finite:
            return "a number, or a sum of squares, is not finite";
        case FitStatus::bad_weights:
            return "a weight is not positive";
        case FitStatus::rank_deficient:
            return "a column of X is determined by the others";
        case FitStatus::too_few_rows:
            return "there are not more rows than fixed effects";
        case FitStatus::exact_response:
            return "the fixed effects fit the response exactly";
        case FitStatus::exact_within:
            return "fixed and random effects together fit the response exactly";
        case FitStatus::not_identified:
            return "the data cannot tell the variance parameters apart";
        case FitStatus::not_converged:
            return "the search did not converge";
        case FitStatus::out_of_range:
            return "the estimates exceed the range of double precision";
    }
    return "";
}

// Whether variation is left that X does not explain. `y_size`: largest absolute response in the unit of
// the working residual.
inline bool leaves_variation(const Regression& on_X, Index n_obs, double y_size) {
    const double spread = std::sqrt(std::max(on_X.residual_sum, 0.0) / static_cast<double>(n_obs));
    return spread > 8 * std::numeric_limits<double>::epsilon() * y_size;
}

// Whether variation is left that X and Z together do not explain. `total`: residual sum of squares on X
// alone; `gram`, `perp` (p + 1, p + 1): cross-products of [X y], whole and beyond the span of Z.
template <class Gram>
bool leaves_variation_within(const Gram& gram, const Gram& perp, const std::vector<int>& keep, double total,
                             Index n_obs, Index rank_Z, bool reml) {
    const Index k = static_cast<Index>(keep.size()), y = gram.rows() - 1;
    Eigen::MatrixXd X(k, k);
    Eigen::VectorXd Xy(k);
    for (Index a = 0; a < k; ++a) {
        const int i = keep[static_cast<std::size_t>(a)];
        const double length = std::sqrt(gram(i, i));
        for (Index b = 0; b <= a; ++b) {
            const int j = keep[static_cast<std::size_t>(b)];
            X(a, b) = perp(i, j) / (length * std::sqrt(gram(j, j)));
        }
        Xy[a] = perp(i, y) / length;
    }
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(X);
    double rest = perp(y, y);
    Index rank = 0;
    for (Index a = 0; a < k; ++a) {
        const double value = eigen.eigenvalues()[a];
        if (!(value > 1e-12)) continue;
        const double coefficient = eigen.eigenvectors().col(a).dot(Xy);
        rest -= coefficient * coefficient / value;
        ++rank;
    }
    const Index rows_left = n_obs - rank_Z - rank;
    const double rounding = 64 * std::numeric_limits<double>::epsilon() * perp(y, y);
    const bool exact = rows_left > 0 && rest <= std::max(1e-24 * total, rounding);
    // With ML the fixed effects may use up all that the random effects leave, and nothing is left.
    return !(exact || (rows_left == 0 && rank > 0 && !reml));
}

}  // namespace lmmfast
