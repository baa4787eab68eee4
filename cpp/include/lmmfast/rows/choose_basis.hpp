// The choice of shifts, scales and working coefficients from all rows of a small data set.
#pragma once

#include <optional>

#include "lmmfast/base/orthogonal.hpp"
#include "lmmfast/covariance/random.hpp"
#include "lmmfast/rows/basis.hpp"

namespace lmmfast {

namespace detail {

// Columns of which more than this part lies beyond the earlier ones are left as they are.
inline constexpr double well_conditioned = 1e-2;

// Power of two next to a positive number: scaling by it rounds nothing.
inline double power_of_two(double x) {
    if (!(x > 0)) return 1.0;
    return std::ldexp(1.0, static_cast<int>(std::clamp(std::nearbyint(std::log2(x)), -1000.0, 1000.0)));
}

struct ShiftAndScale {
    double shift = 0.0, scale = 1.0;
};

// Mean, where columns may be shifted, and a power of two near the root mean square about it.
template <class Values>
ShiftAndScale shift_and_scale(const Values& x, bool shift) {
    const double largest = x.cwiseAbs().maxCoeff();
    if (!(std::isfinite(largest) && largest > 0)) return {};
    const double unit = power_of_two(largest), unit_inv = 1.0 / unit;
    const auto scaled = x.array() * unit_inv;
    const double n = static_cast<double>(x.size());
    const double mean = scaled.sum() / n;
    const double spread = std::sqrt((scaled - mean).square().sum() / n);
    ShiftAndScale out;
    if (shift && spread > 0)
        out = {mean * unit, power_of_two(spread) * unit};
    else
        out.scale = power_of_two(std::sqrt(scaled.square().sum() / n)) * unit;
    // So that 1 / scale is a number too.
    out.scale = std::clamp(out.scale, std::ldexp(1.0, -1000), std::ldexp(1.0, 1000));
    return out;
}

template <class Values>
bool is_constant(const Values& x) {
    if (!std::isfinite(x[0]) || x[0] == 0) return false;
    for (Index i = 1; i < x.size(); ++i)
        if (x[i] != x[0]) return false;
    return true;
}

template <class Values>
bool is_indicator(const Values& x) {
    for (Index i = 0; i < x.size(); ++i)
        if (x[i] != 0.0 && x[i] != 1.0) return false;
    return true;
}

// Coefficients u with X u = 1: of a constant column, or of indicators that add up to one; size 0: none.
inline Eigen::VectorXd unit_coefficients(const Gathered& rows, int known_unit, const Basis& basis) {
    const Eigen::MatrixXd& X = rows.X;
    Eigen::VectorXd u = Eigen::VectorXd::Zero(X.cols());
    if (known_unit >= 0) {
        u[known_unit] = 1.0;
        return u;
    }
    for (int j = 0; j < X.cols(); ++j)
        if (!basis.is_excluded(j) && is_constant(X.col(j))) {
            u[j] = 1.0 / X(0, j);
            return u;
        }
    std::vector<int> indicators;
    for (int j = 0; j < X.cols(); ++j)
        if (!basis.is_excluded(j) && is_indicator(X.col(j))) indicators.push_back(j);
    if (indicators.empty()) return {};
    Orthogonal qr;
    qr.factorise(X, indicators);
    Eigen::VectorXd one = Eigen::VectorXd::Ones(X.rows());
    const Eigen::VectorXd found = qr.solve(one);
    for (std::size_t k = 0; k < indicators.size(); ++k)
        u[indicators[k]] = std::round(found[static_cast<Index>(k)] * 1e12) / 1e12;
    if (((X * u).array() - 1.0).abs().maxCoeff() <= 1e-12) return u;
    return {};
}

inline bool allows_shifts(Structure s) {
    return s == Structure::unstructured;
}
inline bool needs_one_scale(Structure s) {
    return s == Structure::identity || s == Structure::compound_symmetry;
}

// Centre within terms that allow it, scale as far as the structure stays the same.
inline void choose_z_basis(const Gathered& rows, const std::vector<RandomTerm>& terms, Basis& basis) {
    const Index q = rows.Z.cols();
    basis.z_shift = Eigen::VectorXd::Zero(q);
    basis.z_scale = Eigen::VectorXd::Ones(q);
    basis.z_units.assign(static_cast<std::size_t>(q), -1);
    basis.z_unit_values = Eigen::VectorXd::Ones(q);
    int first = 0;
    for (const auto& term : terms) {
        const int end = first + term.q;
        int unit = -1;
        if (allows_shifts(term.structure))
            for (int k = first; k < end && unit < 0; ++k)
                if (is_constant(rows.Z.col(k))) unit = k;
        for (int k = first; k < end; ++k) {
            const auto [shift, scale] = shift_and_scale(rows.Z.col(k), unit >= 0);
            basis.z_shift[k] = shift;
            basis.z_scale[k] = scale;
            if (unit < 0) continue;
            basis.z_units[k] = k == unit ? -1 : unit;
            basis.z_unit_values[k] = rows.Z(0, unit);
        }
        if (unit >= 0) {
            basis.z_shift[unit] = 0.0;
            basis.z_scale[unit] = std::abs(rows.Z(0, unit));
        }
        if (needs_one_scale(term.structure))
            basis.z_scale.segment(first, term.q).setConstant(basis.z_scale.segment(first, term.q).maxCoeff());
        first = end;
    }
}

// Upper triangular map that makes columns nearly orthogonal, if they need it, into rows and columns
// first … of `mix`; says whether it did. `qr` is the factorisation of the columns `used`.
inline bool mix_columns(const Orthogonal& qr, const std::vector<int>& used, int first, Eigen::MatrixXd& mix) {
    const Index k = static_cast<Index>(used.size());
    if (qr.Q.rows() < k || qr.smallest_rest() > well_conditioned) return false;
    // Column l of R^-1 diag(R) times a power of two, over the independent columns.
    for (Index l = 0; l < k; ++l) {
        if (!qr.independent(l)) continue;
        Eigen::VectorXd t = Eigen::VectorXd::Zero(k);
        t[l] = power_of_two(qr.size[l] / qr.R(l, l));
        for (Index i = l; i-- > 0;)
            if (qr.independent(i))
                t[i] = -qr.R.row(i).segment(i + 1, l - i).dot(t.segment(i + 1, l - i)) / qr.R(i, i);
        for (Index i = 0; i <= l; ++i)
            if (qr.independent(i)) mix(first + used[i], first + used[l]) = t[i];
    }
    return true;
}

inline void mix_terms(const WorkingRows& rows, const std::vector<RandomTerm>& terms, Basis& basis) {
    const Index q = rows.Z.cols();
    Eigen::MatrixXd mix = Eigen::MatrixXd::Identity(q, q);
    bool needed = false;
    int first = 0;
    Orthogonal qr;
    for (const auto& term : terms) {
        if (allows_shifts(term.structure) && term.q > 1) {
            std::vector<int> used;
            const auto Z = rows.Z.middleCols(first, term.q);
            for (int k = 0; k < term.q; ++k)
                if (Z.col(k).squaredNorm() > 0) used.push_back(k);
            qr.factorise(Z, used);
            needed |= mix_columns(qr, used, first, mix);
        }
        first += term.q;
    }
    if (needed) basis.z_mix = mix;
}

}  // namespace detail

// Choose shifts, scales and working coefficients, and bring the rows into that basis.
//
// `known_unit` is a column of X known to be the constant 1, or -1; `excluded` (ascending) are columns
// of X that other columns determine. Where numbers are not finite the basis holds such numbers too.
inline Basis choose_basis(const Gathered& rows, const std::vector<RandomTerm>& terms, int known_unit,
                          const std::vector<int>& excluded, WorkingRows& working) {
    using namespace detail;
    const int p = static_cast<int>(rows.X.cols());
    Basis basis;
    basis.excluded = excluded;
    basis.unit = unit_coefficients(rows, known_unit, basis);
    const bool shift = basis.unit.size() > 0;
    basis.x_shift.resize(p);
    basis.x_scale.resize(p);
    for (int j = 0; j < p; ++j) {
        const auto x = shift_and_scale(rows.X.col(j), shift && basis.unit[j] == 0);
        basis.x_shift[j] = x.shift;
        basis.x_scale[j] = x.scale;
    }
    const auto y = shift_and_scale(rows.y, shift);
    basis.y_shift = y.shift;
    basis.y_scale = y.scale;
    choose_z_basis(rows, terms, basis);
    basis.beta = Eigen::VectorXd::Zero(p);
    basis.weighted = rows.weighted();
    if (basis.weighted) basis.weight_scale = power_of_two(rows.weights.mean());
    working.set(rows, basis);
    mix_terms(working, terms, basis);
    WorkingRows::change_basis(working.Z, basis.z_mix);

    std::vector<int> used;
    for (int j = 0; j < p; ++j)
        if (!basis.is_excluded(j) && working.X.col(j).squaredNorm() > 0) used.push_back(j);
    Orthogonal qr;
    qr.factorise(working.X, used);
    Eigen::MatrixXd mix = Eigen::MatrixXd::Identity(p, p);
    if (mix_columns(qr, used, 0, mix)) {
        basis.x_mix = mix;
        WorkingRows::change_basis(working.X, mix);
        qr.factorise(working.X, used);
    }
    const Eigen::VectorXd coefficients = qr.solve(working.r);
    for (std::size_t k = 0; k < used.size(); ++k) basis.beta[used[k]] = coefficients[static_cast<Index>(k)];
    const double spread = std::sqrt(working.r.squaredNorm() / static_cast<double>(rows.n()));
    const double unscale = power_of_two(spread);
    basis.beta /= unscale;
    basis.y_scale *= unscale;
    basis.y_size = rows.y.cwiseAbs().maxCoeff() / basis.y_scale;
    working.set_residual(rows, basis);
    return basis;
}

}  // namespace lmmfast
