// What the Markov engine reads: rows of clusters in the order of time, and a point to evaluate at.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lmmfast/base/lanes.hpp"
#include "lmmfast/engines/markov/decay.hpp"

namespace lmmfast {

// Rows ptr[i] … ptr[i + 1] - 1 are cluster i; matrices row by row. lag (n,) is the distance to the row
// before, whatever it is in the first row of a cluster. inverse_root_weights (n,) and G (n, K_v) may be
// null.
struct MarkovRows {
    int p1 = 0, q = 0, K_v = 0;
    Index m = 0;
    const std::int64_t* ptr = nullptr;  // (m + 1,)
    const double *A = nullptr, *Z = nullptr, *lag = nullptr, *inverse_root_weights = nullptr, *G = nullptr;

    Index n_i(Index i) const { return ptr[i + 1] - ptr[i]; }
    Index longest(Index begin, Index end) const {
        Index longest = 0;
        for (Index i = begin; i < end; ++i) longest = std::max(longest, n_i(i));
        return longest;
    }
};

// Vdot = Z Lambda Lambda' Z' + s P s', P = (1 - nu) C(psi) + nu I, log s = G kappa - log(w) / 2.
struct MarkovPoint {
    MarkovDecay decay;
    bool has_nugget = false;  // whether nu is a parameter; otherwise it is zero
    double nu = 0.0;
    const double* kappa = nullptr;   // (K_v,)
    const double* Lambda = nullptr;  // (q, q)
};

// Parameters of R: kappa (K_v), psi, nu if there is a nugget.
inline int n_residual_params(const MarkovRows& rows, const MarkovPoint& point) {
    return rows.K_v + 1 + (point.has_nugget ? 1 : 0);
}

}  // namespace lmmfast
