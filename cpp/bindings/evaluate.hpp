// One pass of the moments engine, compiled once for all parts of the extension module.
#pragma once

#include "lmmfast/base/parallel.hpp"
#include "lmmfast/engines/totals.hpp"
#include "lmmfast/rows/clusters.hpp"

namespace lmmfast::bindings {

// evaluate_moments
Totals evaluate_blocks(const ClusterBlocks& clusters, const double* Lambda, const double* perp, bool with_kr,
                       int n_threads, Interrupt& interrupt);

}  // namespace lmmfast::bindings
