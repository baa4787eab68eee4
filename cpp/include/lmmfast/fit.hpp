// Whole fits of small data sets with the moments engine.
#pragma once

#include "lmmfast/engines/moments/moments.hpp"
#include "lmmfast/fit/fit_rows.hpp"
#include "lmmfast/fit/fit_segments.hpp"

namespace lmmfast {

// Fit rows that lie in memory. Throws Interrupted.
inline FitOutcome fit_rows(const FitInput& input, Workspace& space, Interrupt& interrupt) {
    return fit_rows(input, space, evaluate_moments, interrupt);
}

// Fit segments of the rows, each by itself, in input.n_threads threads. Throws Interrupted.
inline void fit_segments(const FitInput& input, const Segment* segments, Index n_segments,
                         const SegmentFits& out, Interrupt& interrupt) {
    fit_segments(input, segments, n_segments, evaluate_moments, out, interrupt);
}

}  // namespace lmmfast
