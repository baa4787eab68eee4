// The model at one value of the root parameters, and the steps that lead on from it.
#pragma once

#include <optional>

#include "lmmfast/covariance/random.hpp"
#include "lmmfast/search/objective.hpp"

namespace lmmfast {

// A scaled eigenvalue of the Hessian below this is a direction of ascent, not rounding.
inline constexpr double saddle_tolerance = 1e-7;
// The Newton decrement is twice the log-likelihood still to be gained; its root is the distance to the
// optimum in standard errors.
inline constexpr double decrement_tolerance = 1e-15;

// Score and information pulled back from vech(D) to the root parameters (eq. 4.4-4.6).
struct SearchPoint {
    Vector phi;
    RowMatrix Lambda, D;
    Evaluation evaluation;
    RowMatrix J;             // derivatives of vech(D) by phi
    Vector scale;            // length of a unit of each parameter: about its standard error
    SymmetricEigen eigen;    // of the negative Hessian in the metric of `scale`
    Vector slopes;           // of the log-likelihood along the eigenvectors
    double decrement = 0.0;  // g'H^-1 g over the directions of negative curvature
    double flat = 0.0;       // largest slope along the others

    // At `phi`, `Lambda`; false where the likelihood does not exist.
    bool compute(const Problem& problem, const RandomCovariance& covariance, const Totals& totals) {
        if (!evaluation.compute(problem, totals)) return false;
        D.noalias() = Lambda * Lambda.transpose();
        covariance.jacobian(phi, J);
        JI_.noalias() = J * evaluation.curvature;
        H_.noalias() = JI_ * J.transpose();
        se_inv_ = evaluation.ml_info.cwiseMax(0.0).cwiseSqrt();
        // Standard error of a root parameter: by J where it is not zero, by the curvature where it is.
        scale.noalias() = J.cwiseAbs2() * se_inv_.cwiseAbs2();
        covariance.curvature([&](int a, int b, int k, double value) {
            H_(a, b) -= value * evaluation.score[k];
            if (a == b) scale[a] += std::abs(value) * se_inv_[k];
        });
        slopes.noalias() = J * evaluation.score;
        for (Eigen::Index a = 0; a < scale.size(); ++a) {
            scale[a] = 1.0 / std::sqrt(scale[a] > 0 ? scale[a] : 1.0);
            slopes[a] *= scale[a];
        }
        for (Eigen::Index a = 0; a < scale.size(); ++a)
            for (Eigen::Index b = 0; b < scale.size(); ++b) H_(a, b) *= scale[a] * scale[b];
        if (!H_.allFinite() || !slopes.allFinite()) return false;
        eigen.compute(H_);
        slopes = (eigen.vectors.transpose() * slopes).eval();
        decrement = flat = 0.0;
        for (Eigen::Index a = 0; a < slopes.size(); ++a) {
            if (eigen.values[a] > saddle_tolerance) {
                decrement += slopes[a] * slopes[a] / eigen.values[a];
            } else {
                flat = std::max(flat, std::abs(slopes[a]));
            }
        }
        return true;
    }

    double loglik() const { return evaluation.loglik; }
    double smallest_eigenvalue() const { return eigen.values[0]; }

    // No ascent left: neither along the gradient nor, at a saddle, along a curve upwards.
    bool is_optimal() const {
        return decrement <= decrement_tolerance && flat <= std::sqrt(decrement_tolerance) &&
               smallest_eigenvalue() > -saddle_tolerance;
    }

  private:
    RowMatrix JI_, H_;
    Vector se_inv_;
};

// Expected information and score for the natural parameters and sigma2, in units of sigma2. V is
// homogeneous of degree one in (vech D, sigma2), which gives the row of sigma2 (eq. 3.12, 3.13).
struct NaturalInformation {
    RowMatrix info;  // (n_params + 1, n_params + 1)
    Vector score;    // (n_params + 1,)
    Vector scale;    // roots of the diagonal of info

    NaturalInformation(const Problem& problem, const RandomCovariance& covariance, const SearchPoint& point) {
        const Evaluation& evaluation = point.evaluation;
        const int n = covariance.n_params(), q = covariance.q();
        Vector vech_D(covariance.n_theta());
        for (int b = 0, k = 0; b < q; ++b)
            for (int a = b; a < q; ++a) vech_D[k++] = point.D(a, b);
        const Vector info_D = evaluation.info * vech_D;
        info.setZero(n + 1, n + 1);
        score.setZero(n + 1);
        covariance.natural_jacobian([&](int i, int k, double value) {
            score[i] += value * evaluation.score[k];
            info(i, n) += value * (0.5 * evaluation.trace[k] - info_D[k]);
            covariance.natural_jacobian(
                [&](int j, int l, double other) { info(i, j) += value * other * evaluation.info(k, l); });
        });
        info.row(n) = info.col(n).transpose();
        info(n, n) = 0.5 * problem.df() - evaluation.trace.dot(vech_D) + vech_D.dot(info_D);
        score[n] = -evaluation.score.dot(vech_D);
        scale = info.diagonal().cwiseMax(0.0).cwiseSqrt();
    }

    // To unit diagonal.
    void standardise() {
        for (Eigen::Index i = 0; i < scale.size(); ++i)
            for (Eigen::Index j = 0; j < scale.size(); ++j) info(i, j) /= scale[i] * scale[j];
    }
};

// Whether the data can tell the variance parameters apart where the search begins (section 6).
inline bool is_identified(const Problem& problem, const RandomCovariance& covariance,
                          const SearchPoint& point) {
    constexpr double empty = 1e-14, singular = 1e-10;
    NaturalInformation natural(problem, covariance, point);
    const double largest = natural.info.diagonal().maxCoeff();
    if (!(natural.info.diagonal().minCoeff() > empty * largest)) return false;
    natural.standardise();
    SymmetricEigen eigen;
    eigen.compute(natural.info);
    return eigen.values[0] > singular;
}

struct NaturalStep {
    RowMatrix D;
    bool left_cone = false;  // whether eigenvalues had to be raised
};

// D with its eigenvalues in the metric of `old` raised to a floor; none where `old` is singular.
inline std::optional<NaturalStep> floor_eigenvalues(const RowMatrix& D, const RowMatrix& old) {
    constexpr double cone_floor = 0.02;
    RowMatrix root = old;
    if (!cholesky(root)) return std::nullopt;
    RowMatrix whitened = D;
    solve_lower(root, whitened);
    whitened.transposeInPlace();
    solve_lower(root, whitened);
    whitened = (0.5 * (whitened + whitened.transpose())).eval();
    SymmetricEigen eigen;
    eigen.compute(whitened);
    if (eigen.values[0] >= cone_floor) return NaturalStep{D, false};
    root = (root * eigen.vectors).eval();
    return NaturalStep{root * eigen.values.cwiseMax(cone_floor).asDiagonal() * root.transpose(), true};
}

// D after one Fisher scoring step on its natural parameters and sigma2, relative to the new sigma2
// (eq. 4.1-4.2); none where the information is singular.
inline std::optional<NaturalStep> natural_step(const Problem& problem, const RandomCovariance& covariance,
                                               const SearchPoint& point) {
    constexpr double smallest_change_of_sigma2 = 0.1;
    NaturalInformation natural(problem, covariance, point);
    if (!(natural.scale.array() > 0).all()) return std::nullopt;
    natural.standardise();
    Vector step = natural.score.cwiseQuotient(natural.scale);
    if (!solve(natural.info, step)) return std::nullopt;
    step = step.cwiseQuotient(natural.scale).eval();
    const Eigen::Index n = step.size() - 1;
    const RowMatrix target = (point.D + covariance.from_natural(step.head(n))) /
                             std::max(1.0 + step[n], smallest_change_of_sigma2);
    if (!target.allFinite()) return std::nullopt;
    return floor_eigenvalues(target, point.D);
}

struct TrustStep {
    Vector step;
    double length = 0.0;     // in standard errors
    double predicted = 0.0;  // gain by the quadratic model
};

// Step of at most `radius` standard errors. Directions of the wrong curvature are turned round (the step
// goes up along them); on a saddle, where the gradient says nothing, it goes as far as the curvature
// suggests.
inline TrustStep trust_step(const SearchPoint& point, double radius) {
    const Vector &slopes = point.slopes, &values = point.eigen.values;
    const Vector size = values.cwiseAbs().cwiseMax(1e-8);
    const bool saddle = values[0] < -saddle_tolerance;
    if (std::isinf(radius) && saddle) radius = std::max(1.0, 3 * point.phi.cwiseQuotient(point.scale).norm());
    Vector move = slopes.cwiseQuotient(size);
    if (saddle) {
        const double kick = std::sqrt(2 * -values[0]);
        if (std::abs(move[0]) < 0.1 * kick) move[0] = std::copysign(kick, move[0]);
    }
    if (move.norm() > radius) {
        double low = 0.0, high = slopes.norm() / radius + 1e-8;
        const auto shorten = [&](double by) {
            move = (slopes.array() / (size.array() + by)).matrix();
            return move.norm();
        };
        for (int k = 0; k < 50; ++k) {
            const double middle = 0.5 * (low + high);
            (shorten(middle) > radius ? low : high) = middle;
        }
        if (shorten(high) < 0.1 * radius && values[0] < 0) move[0] = std::copysign(radius, slopes[0]);
    }
    const double predicted = slopes.dot(move) - 0.5 * values.dot(move.cwiseAbs2());
    const Vector scaled = point.eigen.vectors * move;
    return {point.scale.cwiseProduct(scaled), scaled.norm(), predicted};
}

}  // namespace lmmfast
