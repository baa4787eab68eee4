// The Markov engine where totals are wanted for each of some units that clusters lie in.
#pragma once

#include "lmmfast/engines/markov/markov.hpp"
#include "lmmfast/engines/nested/unit_totals.hpp"

namespace lmmfast {

// Adds the totals of each unit, kr among them, to out (n_units, size); cluster i lies in unit[i], which does
// not decrease. Returns the first cluster of which V is not positive definite, or -1.
inline Index markov_unit_totals(const MarkovRows& rows, const MarkovPoint& point, const std::int64_t* unit,
                                double* out, int n_threads, Interrupt& interrupt) {
    const MarkovLayout layout{rows.q, rows.p1, n_residual_params(rows, point), true};
    const std::vector<Index> first = detail::markov_parts(rows, layout.size());
    const auto n_parts = static_cast<Index>(first.size()) - 1;
    return add_unit_totals(n_parts, n_threads, interrupt, out, [&](Index k, UnitSums& sums) -> Index {
        const Index begin = first[k], end = first[k + 1];
        if (begin == end) return -1;
        sums = UnitSums(unit[begin], unit[end - 1], layout.size());
        detail::MarkovWorker worker(rows, point, layout);
        for (Index i = begin; i < end;) {
            const Index stop = std::upper_bound(unit + i, unit + end, unit[i]) - unit;
            const Index stopped = worker.add(i, stop, interrupt, sums.of(unit[i]));
            if (stopped < stop) return stopped;
            i = stop;
        }
        return -1;
    });
}

}  // namespace lmmfast
