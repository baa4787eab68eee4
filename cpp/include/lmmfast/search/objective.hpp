// From totals to likelihood, score and information: small dense algebra, no pass over the data.
//
// Everything is in the working basis and at Vdot = V / sigma2; sigma2 is profiled out
// (docs/algorithm.md, section 3, eq. 3.4-3.13).
#pragma once

#include <numbers>
#include <vector>

#include "lmmfast/base/small_matrix.hpp"
#include "lmmfast/engines/totals.hpp"

namespace lmmfast {

// What does not change during a fit.
struct Problem {
    std::vector<int> keep;  // columns of X that are linearly independent
    Index n_obs = 0;
    bool reml = true;
    double constant = 0.0;  // what the log-likelihood has on the user's scale on top

    int p() const { return static_cast<int>(keep.size()); }
    // Divisor of the residual sum of squares: n (ML) or n - p (REML).
    double df() const { return static_cast<double>(reml ? n_obs - p() : n_obs); }
};

// Profiled log-likelihood and its derivatives by vech(Ddot), (K,), at one point.
class Evaluation {
  public:
    double loglik = 0.0, sigma2 = 0.0;
    Vector beta;           // (p,), of the working residual
    RowMatrix S_inv_root;  // C (p, p) with S^-1 = C C' for S = X'Vdot^-1 X
    Vector score;          // (K,)
    Vector trace;          // tr(Vdot^-1 dV_k) (ML) or tr(P dV_k) (REML), (K,)
    Vector ml_info;        // diagonal of the expected information of ML, (K,)
    RowMatrix info;        // expected information at fixed sigma2; for REML exact with kr only, (K, K)
    RowMatrix curvature;   // negative Hessian where there is kr, else expected, sigma2 profiled out, (K, K)

    // False where the totals are not finite or X'V^-1 X is not positive definite.
    bool compute(const Problem& problem, const Totals& totals) {
        p_ = problem.p();
        K_ = totals.n_theta();
        find_rows(problem, totals.p1);
        if (!factorise(problem, totals)) return false;
        sum_quads(problem, totals);
        score = 0.5 * (residual_quad_ - trace);
        const Eigen::Map<const RowMatrix> ml(totals.info(), K_, K_);
        ml_info = ml.diagonal();
        info = ml;
        if (totals.with_kr) {
            second_order(problem, totals);
        } else {
            curvature = info - (0.5 / problem.df()) * trace * trace.transpose();
        }
        return score.allFinite() && ml_info.allFinite() && curvature.allFinite();
    }

  private:
    // The rows and columns of [X y] that are used; all of them are used as they stand.
    void find_rows(const Problem& problem, int p1) {
        stride_ = p1;
        rows_.assign(problem.keep.begin(), problem.keep.end());
        rows_.push_back(p1 - 1);
        all_ = static_cast<int>(rows_.size()) == p1;
    }

    // The used part of a (p1, p1) sum, (p + 1, p + 1); valid until the next call.
    const double* kept(const double* sum) {
        if (all_) return sum;
        gathered_.resize(p_ + 1, p_ + 1);
        for (int i = 0; i <= p_; ++i)
            for (int j = 0; j <= p_; ++j) gathered_(i, j) = sum[Index{rows_[i]} * stride_ + rows_[j]];
        return gathered_.data();
    }

    bool factorise(const Problem& problem, const Totals& totals) {
        root_ = Eigen::Map<const RowMatrix>(kept(totals.gram()), p_ + 1, p_ + 1);
        if (!std::isfinite(totals.logdet()) || !root_.allFinite()) return false;
        if (!(root_.diagonal().array() > 0).all()) return false;
        scale_ = root_.diagonal().cwiseSqrt();
        for (int i = 0; i <= p_; ++i)
            for (int j = 0; j <= p_; ++j) root_(i, j) /= scale_[i] * scale_[j];
        if (!cholesky(root_)) return false;
        for (int i = 0; i <= p_; ++i) root_.row(i) *= scale_[i];
        const double df = problem.df();
        sigma2 = root_(p_, p_) * root_(p_, p_) / df;
        double value = df * (std::log(2 * std::numbers::pi) + std::log(sigma2) + 1) + totals.logdet();
        if (problem.reml)
            for (int i = 0; i < p_; ++i) value += 2 * std::log(root_(i, i));
        loglik = problem.constant - 0.5 * value;
        solve_beta();
        return std::isfinite(loglik);
    }

    void solve_beta() {
        L_ = root_.topLeftCorner(p_, p_);
        L_inv_.setIdentity(p_, p_);
        solve_lower(L_, L_inv_);
        S_inv_root = L_inv_.transpose();
        beta.noalias() = S_inv_root * root_.row(p_).head(p_).transpose();
        S_inv_.noalias() = S_inv_root * L_inv_;
        c_.resize(p_ + 1);
        c_.head(p_) = -beta;
        c_[p_] = 1.0;
    }

    // Sum of products of S^-1 (p, p) with the X-block of a used sum: tr(S^-1 sum^X).
    double trace_S(const double* sum) const {
        double total = 0.0;
        for (int i = 0; i < p_; ++i)
            total += S_inv_.row(i).dot(Eigen::Map<const Eigen::RowVectorXd>(sum + Index{i} * (p_ + 1), p_));
        return total;
    }
    // c' sum c
    double square_c(const double* sum) const {
        double total = 0.0;
        for (int i = 0; i <= p_; ++i)
            total += c_[i] * c_.dot(Eigen::Map<const Vector>(sum + Index{i} * (p_ + 1), p_ + 1));
        return total;
    }

    void sum_quads(const Problem& problem, const Totals& totals) {
        residual_quad_.resize(K_);
        trace = Eigen::Map<const Vector>(totals.trace(), K_);
        for (int k = 0; k < K_; ++k) {
            const double* quad = kept(totals.quad(k));
            residual_quad_[k] = square_c(quad) / sigma2;
            if (problem.reml) trace[k] -= trace_S(quad);
        }
    }

    // What needs kr: the exact information of REML and the observed information (eq. 3.8, 3.10).
    void second_order(const Problem& problem, const Totals& totals) {
        quad_S_.resize(K_, Index{p_} * p_);
        quad_c_.resize(K_, p_);
        for (int k = 0; k < K_; ++k) {
            const Eigen::Map<const RowMatrix> quad(kept(totals.quad(k)), p_ + 1, p_ + 1);
            quad_c_.row(k).noalias() = (quad.topRows(p_) * c_).transpose() * S_inv_root;
            if (!problem.reml) continue;
            product_.noalias() = quad.topLeftCorner(p_, p_) * S_inv_root;
            Eigen::Map<RowMatrix>(quad_S_.row(k).data(), p_, p_).noalias() = L_inv_ * product_;
        }
        curvature.noalias() = -quad_c_ * quad_c_.transpose();
        kr_S_.setZero(K_, K_);
        for (int k = 0; k < K_; ++k)
            for (int l = 0; l < K_; ++l) {
                const double* kr = kept(totals.kr(k, l));
                curvature(k, l) += square_c(kr);
                if (problem.reml) kr_S_(k, l) = trace_S(kr);
            }
        if (problem.reml) info += 0.5 * (quad_S_ * quad_S_.transpose() - kr_S_ - kr_S_.transpose());
        kr_S_ = curvature.transpose();
        curvature = (0.5 / sigma2) * (curvature + kr_S_) - info -
                    (0.5 / problem.df()) * residual_quad_ * residual_quad_.transpose();
    }

    int p_ = 0, K_ = 0, stride_ = 0;
    bool all_ = true;
    std::vector<int> rows_;
    Vector scale_, c_, residual_quad_;
    RowMatrix root_, L_, L_inv_, S_inv_, gathered_, quad_S_, quad_c_, product_, kr_S_;
};

}  // namespace lmmfast
