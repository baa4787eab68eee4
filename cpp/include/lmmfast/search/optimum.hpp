// The end of a search, and what is known about it in numbers.
#pragma once

#include <limits>
#include <vector>

#include "lmmfast/search/search_point.hpp"

namespace lmmfast {

enum class Status {
    converged,
    stalled,          // the search stopped before the gradient vanished
    saddle,           // the search stopped at a saddle
    iteration_limit,  // no convergence within the evaluations allowed
    not_identified,   // the information is singular where the search begins
    failed,           // the likelihood does not exist where the search begins
};

enum class Step { check, start, natural, root, restart, snap };

inline const char* step_name(Step step) {
    constexpr const char* names[] = {"check", "start", "natural", "root", "restart", "snap to the boundary"};
    return names[static_cast<int>(step)];
}

struct TraceEntry {
    Step step;
    double loglik, decrement, smallest_eigenvalue;
    Vector phi;
};

// In the working basis; all but status and trace are empty where the search could not begin.
struct Optimum {
    Status status = Status::failed;
    Vector phi;
    RowMatrix Lambda, D;  // (q, q), relative to sigma2
    double sigma2 = 0.0;
    Vector beta;           // kept columns, of the working residual
    RowMatrix S_inv_root;  // (p, p), kept columns: (X'Vdot^-1 X)^-1 = C C'
    double loglik = 0.0, decrement = 0.0, smallest_eigenvalue = 0.0;
    std::vector<int> ranks;                                        // of D of each term
    double multiplier = std::numeric_limits<double>::quiet_NaN();  // largest slope into the cone (eq. 4.7)
    std::vector<TraceEntry> trace;

    bool on_boundary() const { return !std::isnan(multiplier); }
};

namespace detail {

// An eigenvalue of D below this many standard errors is zero.
inline constexpr double zero_eigenvalue = 1e-8;
// A multiplier above this many standard errors would mean that D should grow.
inline constexpr double multiplier_tolerance = 1e-4;

// Rough standard errors of the diagonal of Ddot, (q,).
inline Vector standard_errors(const SearchPoint& point) {
    const auto q = static_cast<int>(point.D.rows());
    Vector se(q);
    for (int a = 0; a < q; ++a) {
        const double info = point.evaluation.ml_info[pair_index(a, a, q)];
        se[a] = 1.0 / std::sqrt(info > 0 ? info : 1.0);
    }
    return se;
}

// Eigenvalues and -vectors of a term's Ddot in units of its standard errors.
inline SymmetricEigen scaled_eigen(const SearchPoint& point, const Vector& se, int column, int q) {
    const Vector unit = se.segment(column, q).cwiseSqrt();
    RowMatrix A = point.D.block(column, column, q, q);
    for (int a = 0; a < q; ++a)
        for (int b = 0; b < q; ++b) A(a, b) /= unit[a] * unit[b];
    SymmetricEigen eigen;
    eigen.compute(A);
    eigen.vectors = unit.asDiagonal() * eigen.vectors;
    return eigen;
}

// Ddot with eigenvalues that are zero but for rounding set to zero; false if there are none.
inline bool snap_to_boundary(const RandomCovariance& covariance, const SearchPoint& point, RowMatrix& D) {
    bool changed = false;
    D = point.D;
    const Vector se = standard_errors(point);
    covariance.each_term([&](const RandomTerm& term, int column, int) {
        SymmetricEigen eigen = scaled_eigen(point, se, column, term.q);
        if (!(eigen.values[0] > 0 && eigen.values[0] <= zero_eigenvalue)) return;
        changed = true;
        for (double& value : eigen.values)
            if (value <= zero_eigenvalue) value = 0.0;
        D.block(column, column, term.q, term.q) =
            eigen.vectors * eigen.values.asDiagonal() * eigen.vectors.transpose();
    });
    for (Eigen::Index a = 0; a < D.rows(); ++a)
        if (D(a, a) <= 0) {
            D.row(a).setZero();
            D.col(a).setZero();
        }
    return changed;
}

// Second-order slope along directions of phi that leave D unchanged at first (eq. 4.7).
inline double multiplier(const RandomCovariance& covariance, const SearchPoint& point, const Vector& se) {
    constexpr double unchanged = 1e-6;  // square of a change in standard errors
    const int q = covariance.q(), n = covariance.n_params();
    RowMatrix J = point.scale.asDiagonal() * point.J;
    for (int b = 0, k = 0; b < q; ++b)
        for (int a = b; a < q; ++a) J.col(k++) /= std::sqrt(se[a] * se[b]);
    RowMatrix squares = J * J.transpose();
    SymmetricEigen eigen;
    eigen.compute(squares);
    const auto n_null = (eigen.values.array() <= unchanged).count();
    if (n_null == 0) return 0.0;
    const RowMatrix null = eigen.vectors.leftCols(n_null);
    RowMatrix slope = RowMatrix::Zero(n, n);
    covariance.curvature([&](int a, int b, int k, double value) {
        slope(a, b) += value * point.evaluation.score[k] * point.scale[a] * point.scale[b];
    });
    RowMatrix into_cone = null.transpose() * slope * null;
    eigen.compute(into_cone);
    return eigen.values[n_null - 1];
}

// Judges the end of a search.
inline void conclude(const RandomCovariance& covariance, const SearchPoint& point, Optimum& out) {
    out.phi = point.phi;
    out.Lambda = point.Lambda;
    out.D = point.D;
    out.sigma2 = point.evaluation.sigma2;
    out.beta = point.evaluation.beta;
    out.S_inv_root = point.evaluation.S_inv_root;
    out.loglik = point.loglik();
    out.decrement = point.decrement;
    out.smallest_eigenvalue = point.smallest_eigenvalue();
    const Vector se = standard_errors(point);
    bool boundary = false;
    out.ranks.clear();
    covariance.each_term([&](const RandomTerm& term, int column, int) {
        const SymmetricEigen eigen = scaled_eigen(point, se, column, term.q);
        out.ranks.push_back(static_cast<int>((eigen.values.array() > zero_eigenvalue).count()));
        boundary |= out.ranks.back() < term.q;
    });
    if (!boundary) return;
    out.multiplier = multiplier(covariance, point, se);
    if (out.status == Status::converged && out.multiplier > multiplier_tolerance) out.status = Status::saddle;
}

}  // namespace detail

}  // namespace lmmfast
