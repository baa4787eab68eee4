// What the dense engine works on: buckets of patterns of one size, and the covariance of their rows.
//
//     Vdot = Z Ddot Z' + Rdot,  Ddot = Lambda Lambda',  Rdot_jl = s_j s_l P_jl,  P = (1 - nu) C + nu I,
//     s_j = exp(sum_k G_jk kappa_k) / sqrt(w_j)
//
// Parameters of the totals, in this order: vech(Ddot), kappa, psi (of C), nu.
#pragma once

#include <cstdint>

#include "lmmfast/base/lanes.hpp"
#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

// Patterns (clusters but for A) of n rows each, n_lanes of them side by side, so that the last index of
// every array is that of the lane. `reps` clusters share a pattern's V.
struct DenseBucket {
    Index n_packs = 0, reps = 0;
    int n = 0, p1 = 0, q = 0, n_variance = 0, n_lanes = 0;
    const double* A = nullptr;                     // (n_packs, reps, n, p1, n_lanes), zero in unused lanes
    const double* Z = nullptr;                     // (n_packs, n, q, n_lanes)
    const double* counts = nullptr;                // (n_packs, n_lanes): clusters of the pattern
    const double* inverse_root_weights = nullptr;  // (n_packs, n, n_lanes): 1/sqrt(w), or null
    const double* G = nullptr;                     // (n_packs, n, n_variance, n_lanes)
};

// C and its derivatives by psi.
struct Correlation {
    enum class Kind { none, distance, table, given };
    Kind kind = Kind::none;
    int n_params = 0;
    const DistanceCorrelation* structure = nullptr;  // distance:
    const double* coords = nullptr;                  //   (n_packs, n, n_coords, n_lanes)
    int n_coords = 0;
    const std::int32_t* positions = nullptr;  // table: (n_packs, n, n_lanes), levels 0 … T - 1
    int T = 0;
    const double* C = nullptr;   // table: (T, T); given: (n_packs, n, n, n_lanes)
    const double* dC = nullptr;  // table: (n_params, T, T); given: (n_packs, n_params, n, n, n_lanes)
};

struct DenseCovariance {
    const double* Lambda = nullptr;  // (q, q)
    const double* kappa = nullptr;   // (n_variance,)
    Correlation correlation;
    bool has_nugget = false;
    double nu = 0.0;
};

inline int n_residual_params(const DenseBucket& bucket, const DenseCovariance& covariance) {
    return bucket.n_variance + covariance.correlation.n_params + (covariance.has_nugget ? 1 : 0);
}

// Where each total of K parameters stands in a flat buffer, in the order of Totals (totals.hpp).
struct DenseTotalsLayout {
    int K = 0, p1 = 0;
    bool with_kr = false;

    Index square() const { return Index{p1} * p1; }
    Index trace(int k) const { return 1 + k; }
    Index info(int k, int l) const { return trace(K) + Index{k} * K + l; }
    Index gram() const { return info(K, 0); }
    Index quad(int k) const { return gram() + square() * (1 + k); }
    Index kr(int k, int l) const { return quad(K) + square() * (Index{k} * K + l); }
    Index size() const { return with_kr ? kr(K, 0) : quad(K); }
};

}  // namespace lmmfast
