// From the working basis back to the user's units: coefficients, variances, likelihood.
#pragma once

#include <limits>

#include "lmmfast/rows/basis.hpp"
#include "lmmfast/search/resumable_search.hpp"

namespace lmmfast {

// The likelihood with the constant of the user's scale (docs/algorithm.md, eq. 3.3).
inline Problem make_problem(std::vector<int> keep, Index n_obs, bool reml, const Basis& basis,
                            double log_weights) {
    Problem problem{std::move(keep), n_obs, reml, 0.0};
    problem.constant = 0.5 * log_weights - problem.df() * std::log(basis.y_scale);
    if (reml) problem.constant += basis.x_log_det(problem.keep);
    return problem;
}

// Results on the user's scale.
struct Estimates {
    Vector beta;         // (k,), of the kept columns
    RowMatrix cov_beta;  // (k, k): (X'V^-1 X)^-1
    RowMatrix D;         // (q, q)
    double sigma2 = 0.0;
    double loglik = 0.0;  // with all constants (docs/algorithm.md, eq. 1.3-1.4)
    Vector theta;         // natural variance parameters of all terms, then sigma2

    bool in_range() const { return theta.allFinite() && cov_beta.allFinite() && std::isfinite(1.0 / sigma2); }
};

// The optimum on the user's scale (docs/algorithm.md, eq. 5.1-5.2).
inline Estimates estimates(const Optimum& optimum, const Problem& problem, const Basis& basis,
                           const RandomCovariance& covariance) {
    const auto& keep = problem.keep;
    const Eigen::MatrixXd A = basis.x_map(keep), A_z = basis.z_map();
    Estimates out;
    out.beta = basis.y_scale * (A * (optimum.beta + basis.beta(keep)));
    if (basis.unit.size()) out.beta += basis.y_shift * basis.unit(keep);
    const double variance_unit = basis.y_scale * basis.y_scale * optimum.sigma2;
    const RowMatrix root = A * optimum.S_inv_root;
    out.cov_beta.noalias() = variance_unit * root * root.transpose();
    out.D.noalias() = A_z * optimum.D * A_z.transpose();
    out.D *= variance_unit;
    // A variance that is too small for a double is none.
    for (Index k = 0; k < out.D.rows(); ++k)
        if (out.D(k, k) == 0 && optimum.D(k, k) > 0) out.D(k, k) = std::numeric_limits<double>::quiet_NaN();
    out.sigma2 = variance_unit * basis.weight_scale;
    out.loglik = optimum.loglik;
    out.theta.resize(covariance.n_params() + 1);
    out.theta << covariance.natural(out.D), out.sigma2;
    return out;
}

}  // namespace lmmfast
