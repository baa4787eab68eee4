// Predictions of the random effects of a whole fit.
#pragma once

#include "lmmfast/engines/moments/random_effects.hpp"
#include "lmmfast/fit/fit_rows.hpp"

namespace lmmfast {

// b (n_clusters, q) on the user's scale, of a fit whose status is `fitted` (docs/algorithm.md, eq. 5.4).
inline void predict_effects(const FitOutcome& fitted, double* b, int n_threads, Interrupt& interrupt) {
    const PackedClusters& packed = fitted.packed;
    const RowMatrix root = fitted.basis.y_scale * fitted.basis.z_map() * fitted.optimum.Lambda;
    Vector c = Vector::Zero(packed.layout.p1);
    c[packed.layout.p1 - 1] = 1.0;
    c(fitted.problem.keep) = -fitted.optimum.beta;
    random_effects(packed.blocks(), packed.n_clusters, fitted.optimum.Lambda.data(), root.data(), c.data(), b,
                   n_threads, interrupt);
}

}  // namespace lmmfast
