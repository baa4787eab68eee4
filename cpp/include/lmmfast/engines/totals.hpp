// The one additive value: sums over clusters from which likelihood, score and information follow.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "lmmfast/base/lanes.hpp"

namespace lmmfast {

// All at sigma2 = 1, that is for Vdot = V / sigma2, with k, l running over vech(Ddot):
//   logdet  sum log|Vdot_i|                                    ()
//   trace   sum tr(Vdot_i^-1 dV_k)                             (K,)
//   info    sum tr(Vdot_i^-1 dV_k Vdot_i^-1 dV_l) / 2          (K, K)
//   gram    sum A_i' Vdot_i^-1 A_i                             (p1, p1)
//   quad    sum A_i' Vdot_i^-1 dV_k Vdot_i^-1 A_i              (K, p1, p1)
//   kr      sum A_i' Vdot_i^-1 dV_k Vdot_i^-1 dV_l Vdot_i^-1 A_i   (K, K, p1, p1), on demand
struct Totals {
    int q = 0, p1 = 0;
    bool with_kr = false;
    std::vector<double> values;

    Totals(int q_, int p1_, bool with_kr_)
        : q(q_), p1(p1_), with_kr(with_kr_), values(static_cast<std::size_t>(size(q_, p1_, with_kr_))) {}

    static Index size(int q, int p1, bool with_kr) {
        const Index K = n_pairs(q), square = Index{p1} * p1;
        return 1 + K + K * K + square * (1 + K + (with_kr ? K * K : 0));
    }

    int n_theta() const { return n_pairs(q); }
    double& logdet() { return values[0]; }
    double* trace() { return values.data() + 1; }
    double* info() { return trace() + n_theta(); }
    double* gram() { return info() + Index{n_theta()} * n_theta(); }
    double* quad(int k) { return gram() + square() * (1 + k); }
    double* kr(int k, int l) { return quad(n_theta()) + square() * (Index{k} * n_theta() + l); }

    double logdet() const { return values[0]; }
    const double* trace() const { return values.data() + 1; }
    const double* info() const { return trace() + n_theta(); }
    const double* gram() const { return info() + Index{n_theta()} * n_theta(); }
    const double* quad(int k) const { return gram() + square() * (1 + k); }
    const double* kr(int k, int l) const { return quad(n_theta()) + square() * (Index{k} * n_theta() + l); }

    Totals& operator+=(const Totals& other) {
        for (std::size_t k = 0; k < values.size(); ++k) values[k] += other.values[k];
        return *this;
    }

  private:
    Index square() const { return Index{p1} * p1; }
};

}  // namespace lmmfast
