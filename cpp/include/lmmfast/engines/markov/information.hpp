// tr(R^-1 dR_k) and the exact tr(R^-1 dR_k R^-1 dR_l) / 2 of a cluster (docs/markov.md, M8-M9).
#pragma once

#include <algorithm>
#include <vector>

#include "lmmfast/engines/markov/filter.hpp"

namespace lmmfast {

// Feeding white noise of unit variance to the recursion of N_k y, the covariance of (m, x_1 … x_K) obeys
// a linear recursion of its own, and with it the information is a sum over rows.
class MarkovInformation {
  public:
    explicit MarkovInformation(int K)
        : K_(K),
          trace_(static_cast<std::size_t>(K)),
          info_(static_cast<std::size_t>(K * K)),
          Sigma_m_(trace_.size()),
          Sigma_(info_.size()) {}

    void evaluate(const MarkovFilter& filter) {
        for (auto* v : {&trace_, &info_, &Sigma_m_, &Sigma_}) std::fill(v->begin(), v->end(), 0.0);
        var_m_ = 0.0;
        for (Index j = 0; j < filter.n_i(); ++j) add_row(filter, j);
        for (int k = 0; k < K_; ++k)
            for (int l = 0; l < k; ++l) info_[at(l, k)] = info_[at(k, l)];
    }
    double trace(int k) const { return trace_[static_cast<std::size_t>(k)]; }
    double info(int k, int l) const { return info_[at(k, l)]; }

  private:
    int K_;
    std::vector<double> trace_, info_;
    double var_m_ = 0.0;                   // Var(m_j)
    std::vector<double> Sigma_m_, Sigma_;  // Cov(x_k, m) (K,), Cov(x_k, x_l) (K, K), l <= k

    std::size_t at(int k, int l) const { return static_cast<std::size_t>(k * K_ + l); }

    void add_row(const MarkovFilter& filter, Index j) {
        const MarkovStep& s = filter.steps()[j];
        for (int k = 0; k < K_; ++k) {
            const MarkovSlope& a = filter.slopes(k)[j];
            const double Sigma_km = Sigma_m_[static_cast<std::size_t>(k)];
            trace_[static_cast<std::size_t>(k)] += 2 * a.diagonal;
            for (int l = 0; l <= k; ++l) {
                const MarkovSlope& b = filter.slopes(l)[j];
                const double Sigma_lm = Sigma_m_[static_cast<std::size_t>(l)];
                double& Sigma_kl = Sigma_[at(k, l)];
                info_[at(k, l)] += 2 * a.diagonal * b.diagonal + s.r * s.r * Sigma_kl +
                                   s.r * (a.rG * Sigma_lm + b.rG * Sigma_km) + a.rG * b.rG * var_m_;
                Sigma_kl = s.beta * s.beta * Sigma_kl + s.beta * (a.alpha * Sigma_lm + b.alpha * Sigma_km) +
                           a.alpha * b.alpha * var_m_ + a.h * b.h;
            }
        }
        for (int k = 0; k < K_; ++k) {
            const MarkovSlope& a = filter.slopes(k)[j];
            double& Sigma_km = Sigma_m_[static_cast<std::size_t>(k)];
            Sigma_km = s.c * (a.alpha * var_m_ + s.beta * Sigma_km) + s.h * a.h;
        }
        var_m_ = s.c * s.c * var_m_ + s.h * s.h;
    }
};

}  // namespace lmmfast
