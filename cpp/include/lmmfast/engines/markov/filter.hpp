// The recursion that factorises R of a cluster, and its derivatives (docs/markov.md, M3-M7).
#pragma once

#include <cmath>
#include <vector>

#include "lmmfast/engines/markov/rows.hpp"

namespace lmmfast {

// log of a product of positive numbers, with one logarithm for many of them.
class LogOfProduct {
  public:
    void multiply(double x) {
        constexpr double tiny = 1e-100;
        if (!(x > tiny && x < 1 / tiny)) {
            sum_ += std::log(x);
            return;
        }
        product_ *= x;
        if (product_ > tiny && product_ < 1 / tiny) return;
        sum_ += std::log(product_);
        product_ = 1.0;
    }
    double total() const { return sum_ + std::log(product_); }

  private:
    double sum_ = 0.0, product_ = 1.0;
};

// Row j of the factorisation R = L L': with a_j = scale A_j and e_j = a_j less its prediction m_j,
//   y_j = r e_j,   m_{j+1} = c m_j + h y_j,   e_{j+1} = a_{j+1} - a_j + less a_j + beta e_j
struct MarkovStep {
    double scale, c, less, beta, h, r;
};

// Row j of N_k = L^-1 (dL/dk): with x_1 = 0,
//   (N_k y)_j = r x_j + rG m_j + diagonal y_j,   x_{j+1} = alpha m_j + beta x_j + h y_j
struct MarkovSlope {
    double alpha, h, diagonal, rG;
};

class MarkovFilter {
  public:
    MarkovFilter(const MarkovRows& rows, const MarkovPoint& point, Index longest, bool with_slopes)
        : rows_(rows),
          point_(point),
          longest_(longest),
          K_(with_slopes ? n_residual_params(rows, point) : 0),
          steps_(static_cast<std::size_t>(longest)),
          slopes_(static_cast<std::size_t>(longest * K_)) {}

    int n_params() const { return K_; }
    Index n_i() const { return n_i_; }
    double logdet() const { return logdet_; }  // log|R|
    const MarkovStep* steps() const { return steps_.data(); }
    const MarkovSlope* slopes(int k) const { return slopes_.data() + k * longest_; }

    // False where R is not positive definite or not finite.
    bool factorise(Index i) {
        const Index begin = rows_.ptr[i];
        n_i_ = rows_.n_i(i);
        state_ = {1 - point_.nu, 0.0, 0.0, 0.0};
        LogOfProduct det_P, det_s;
        double log_s = 0.0, last_lag = -1.0;
        Decay decay;
        for (Index j = 0; j < n_i_; ++j) {
            if (j + 1 == n_i_) {
                decay = {};
            } else if (const double lag = rows_.lag[begin + j + 1]; lag != last_lag) {
                decay = point_.decay(lag);
                last_lag = lag;
            }
            const double f = state_.p + point_.nu;
            if (!(f > 0 && std::isfinite(1 / f) && std::isfinite(decay.c))) return false;
            det_P.multiply(f);
            steps_[static_cast<std::size_t>(j)].scale = scale(begin + j, log_s, det_s);
            step(begin + j, j, decay, f);
        }
        logdet_ = det_P.total() + 2 * (log_s + det_s.total());
        return std::isfinite(logdet_);
    }

  private:
    // Before row j: prior variance p of the process, variance of its prediction m, and df/dpsi, df/dnu
    // where f = p + nu.
    struct State {
        double p, var_m, f_psi, f_nu;
    };
    MarkovRows rows_;
    MarkovPoint point_;
    Index longest_, n_i_ = 0;
    int K_;
    std::vector<MarkovStep> steps_;
    std::vector<MarkovSlope> slopes_;  // (K, longest)
    State state_{};
    double logdet_ = 0.0;

    // 1 / s_row; its part of sum log s goes to log_s and det_s.
    double scale(Index row, double& log_s, LogOfProduct& det_s) const {
        double G_kappa = 0.0, scale = 1.0;
        for (int k = 0; k < rows_.K_v; ++k) G_kappa += rows_.G[row * rows_.K_v + k] * point_.kappa[k];
        if (rows_.K_v > 0) scale = std::exp(-G_kappa);
        log_s += G_kappa;
        if (!rows_.inverse_root_weights) return scale;
        det_s.multiply(rows_.inverse_root_weights[row]);
        return scale / rows_.inverse_root_weights[row];
    }

    void step(Index row, Index j, const Decay& decay, double f) {
        const auto [c, dc, less, complement] = decay;
        const auto [p, var_m, f_psi, f_nu] = state_;
        const double f_inv = 1 / f, r = std::sqrt(f_inv), root_f = f * r;
        const double g = p * f_inv, kept = point_.nu * f_inv;  // g + kept = 1
        MarkovStep& s = steps_[static_cast<std::size_t>(j)];
        s.c = c;
        s.less = less;
        s.beta = c * kept;
        s.h = c * g * root_f;
        s.r = r;
        if (K_ > 0) {
            for (int k = 0; k < rows_.K_v; ++k) {
                const double G = rows_.G[row * rows_.K_v + k];
                slope(k, j) = {-c * g * G, -s.h * G, G, r * G};
            }
            const double g_psi = f_psi * kept * f_inv, g_nu = (f_nu * kept - 1) * f_inv;
            slope(rows_.K_v, j) = {dc, (dc * g + c * g_psi) * root_f, 0.5 * f_psi * f_inv, 0.0};
            if (point_.has_nugget)
                slope(rows_.K_v + 1, j) = {0.0, c * g_nu * root_f, 0.5 * f_nu * f_inv, 0.0};
        }
        const double c2 = c * c, learnt = var_m + g * p;
        state_.p = c2 * p * kept + (1 - point_.nu) * complement;
        state_.var_m = c2 * learnt;
        state_.f_psi = c2 * kept * kept * f_psi - 2 * c * dc * learnt;
        state_.f_nu = c2 * (kept * kept * f_nu + 2 * g);
    }
    MarkovSlope& slope(int k, Index j) { return slopes_[static_cast<std::size_t>(k * longest_ + j)]; }
};

}  // namespace lmmfast
