// lmmfast for C++: fit a Gaussian linear mixed model
//
//     y_i = X_i beta + Z_i b_i + e_i,   b_i ~ N(0, D),   e_i ~ N(0, sigma2 I)
//
// of groups i by restricted maximum likelihood (REML) or maximum likelihood. Everything is in headers;
// needed are C++20, Eigen 3.4 and threads:
//
//     #include "lmmfast/lmmfast.hpp"
//
//     Eigen::MatrixXd X(n, 2);                        // a column of ones and a covariate, say
//     Eigen::VectorXd y(n);
//     std::vector<std::int64_t> subject(n);           // any integers, in any order
//     const lmmfast::Fit fit = lmmfast::fit(y, X, X, subject);   // random intercept and slope
//     if (!fit.converged) throw std::runtime_error(fit.status);
//     std::cout << fit.beta << fit.cov_beta << fit.D << fit.sigma2 << fit.loglik;
//
// Columns that others determine, a response that is fitted exactly, variances that the data cannot tell
// apart end with `converged` false and a sentence in `status`; every number is NaN then. Arguments that
// do not fit together throw std::invalid_argument. Calls from several threads do not disturb each other.
//
// For data already sorted by group, for columns of any stride, and for many fits in a row without fresh
// memory see fit_rows in lmmfast/fit.hpp.
#pragma once

#include <limits>
#include <span>
#include <stdexcept>
#include <string>

#include "lmmfast/fit.hpp"
#include "lmmfast/fit/fitted_effects.hpp"
#include "lmmfast/rows/grouping.hpp"

namespace lmmfast {

struct FitOptions {
    bool reml = true;
    // Terms that share out the columns of Z, in order; D is block-diagonal over them. Empty: one term
    // with an unstructured D.
    std::vector<RandomTerm> terms;
    const double* weights = nullptr;  // (n,): the residual variance of a row is sigma2 / weight
    const double* offset = nullptr;   // (n,): known part of the mean
    int max_evaluations = 200;
    int n_threads = 1;
};

struct Fit {
    bool converged = false;
    std::string status;        // "fitted", or why not
    Eigen::VectorXd beta;      // (p,)
    Eigen::MatrixXd cov_beta;  // (p, p)
    Eigen::MatrixXd D;         // (q, q)
    double sigma2 = std::numeric_limits<double>::quiet_NaN();
    double loglik = std::numeric_limits<double>::quiet_NaN();  // with all constants
    int evaluations = 0;                                       // passes over the groups
    std::vector<std::int64_t> groups;                          // (m,): the distinct groups, ascending
    Eigen::MatrixXd random_effects;  // (m, q): predictions of b_i, a row per entry of `groups`
};

namespace detail {

// Distinct values, ascending, and for each row the position of its own.
inline std::vector<std::int64_t> code_groups(std::span<const std::int64_t> groups,
                                             std::vector<std::int64_t>& codes) {
    std::vector<std::int64_t> distinct(groups.begin(), groups.end());
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    codes.resize(groups.size());
    std::transform(groups.begin(), groups.end(), codes.begin(), [&](std::int64_t group) {
        return std::lower_bound(distinct.begin(), distinct.end(), group) - distinct.begin();
    });
    return distinct;
}

inline std::vector<Column> columns_of(const Eigen::Ref<const Eigen::MatrixXd>& matrix) {
    std::vector<Column> out;
    for (Index j = 0; j < matrix.cols(); ++j) out.push_back({matrix.data() + j * matrix.outerStride(), 1});
    return out;
}

inline void check_arguments(Index n, Index p, Index q, Index n_groups, const FitOptions& options) {
    if (n_groups != n) throw std::invalid_argument("y, X, Z and groups must have the same number of rows");
    if (n == 0 || p == 0) throw std::invalid_argument("there must be rows, and columns of X");
    if (q < 1 || q > max_q)
        throw std::invalid_argument("Z must have 1 to " + std::to_string(max_q) + " columns");
    Index in_terms = 0;
    for (const auto& term : options.terms) in_terms += term.q;
    if (!options.terms.empty() && in_terms != q)
        throw std::invalid_argument("the terms must share out the columns of Z");
}

}  // namespace detail

// Fit y (n,) on X (n, p) with random effects of Z (n, q) by group (n,). Row-major matrices are copied.
inline Fit fit(const Eigen::Ref<const Eigen::VectorXd>& y, const Eigen::Ref<const Eigen::MatrixXd>& X,
               const Eigen::Ref<const Eigen::MatrixXd>& Z, std::span<const std::int64_t> groups,
               const FitOptions& options = {}) {
    if (X.rows() != y.size() || Z.rows() != y.size())
        throw std::invalid_argument("y, X, Z and groups must have the same number of rows");
    detail::check_arguments(y.size(), X.cols(), Z.cols(), static_cast<Index>(groups.size()), options);
    Fit out;
    std::vector<std::int64_t> codes, order(groups.size());
    out.groups = detail::code_groups(groups, codes);
    std::vector<std::int64_t> ptr(out.groups.size() + 1);
    Interrupt interrupt;
    counting_sort<std::int64_t>(codes, 0, static_cast<Index>(out.groups.size()), ptr, order, 1, interrupt);

    FitInput input;
    input.data.X = detail::columns_of(X);
    input.data.Z = detail::columns_of(Z);
    input.data.y = {y.data(), 1};
    const Column weights{options.weights, 1}, offset{options.offset, 1};
    if (options.weights) input.data.weights = &weights;
    if (options.offset) input.data.offset = &offset;
    input.data.ptr = ptr.data();
    input.data.order = order.data();
    input.data.n_clusters = static_cast<Index>(out.groups.size());
    input.terms = options.terms;
    if (input.terms.empty()) input.terms = {{Structure::unstructured, static_cast<int>(Z.cols())}};
    input.reml = options.reml;
    input.search.max_evaluations = options.max_evaluations;
    input.n_threads = options.n_threads;

    Workspace space;
    const FitOutcome fitted = fit_rows(input, space, interrupt);
    out.status = describe(fitted.status);
    out.converged = fitted.status == FitStatus::fitted;
    const double none = std::numeric_limits<double>::quiet_NaN();
    if (!out.converged) {
        out.beta.setConstant(X.cols(), none);
        out.cov_beta.setConstant(X.cols(), X.cols(), none);
        out.D.setConstant(Z.cols(), Z.cols(), none);
        out.random_effects.setConstant(static_cast<Index>(out.groups.size()), Z.cols(), none);
        return out;
    }
    out.beta = fitted.estimates.beta;
    out.cov_beta = fitted.estimates.cov_beta;
    out.D = fitted.estimates.D;
    out.sigma2 = fitted.estimates.sigma2;
    out.loglik = fitted.estimates.loglik;
    out.evaluations = static_cast<int>(fitted.optimum.trace.size());
    RowMatrix b(fitted.packed.n_clusters, fitted.packed.layout.q);
    predict_effects(fitted, b.data(), options.n_threads, interrupt);
    out.random_effects = b;
    return out;
}

}  // namespace lmmfast
