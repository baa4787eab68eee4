// A whole fit of a small data set with the moments engine.
#pragma once

#include "lmmfast/engines/moments.hpp"
#include "lmmfast/fit_rows.hpp"

namespace lmmfast {

// Fit rows that lie in memory. Throws Interrupted.
inline FitOutcome fit_rows(const FitInput& input, Workspace& space, Interrupt& interrupt) {
    return fit_rows(input, space, evaluate_moments, interrupt);
}

}  // namespace lmmfast
