// The search on compressed clusters, from its start to its end.
#pragma once

#include "lmmfast/engines/moments/moments.hpp"
#include "lmmfast/search/resumable_search.hpp"

namespace lmmfast {

// `perp` (p1, p1) as in evaluate_moments. Throws Interrupted.
inline Optimum maximise(const ClusterBlocks& clusters, const double* perp, const Problem& problem,
                        const RandomCovariance& covariance, const SearchOptions& options, int n_threads,
                        Interrupt& interrupt) {
    Search search(problem, covariance, options);
    while (!search.done())
        search.tell(
            evaluate_moments(clusters, search.Lambda(), perp, search.with_kr(), n_threads, interrupt));
    return search.optimum();
}

}  // namespace lmmfast
