// Totals of the clusters inside each of some larger units, added up part by part.
#pragma once

#include <algorithm>
#include <vector>

#include "lmmfast/base/parallel.hpp"

namespace lmmfast {

// Sums of one part of the clusters, for the units that it touches: those from the first to the last.
class UnitSums {
  public:
    UnitSums() = default;
    UnitSums(Index first, Index last, Index size)
        : first_(first), size_(size), values_(static_cast<std::size_t>((last - first + 1) * size), 0.0) {}

    double* of(Index unit) { return values_.data() + (unit - first_) * size_; }
    void add_to(double* out) const {
        double* to = out + first_ * size_;
        for (std::size_t e = 0; e < values_.size(); ++e) to[e] += values_[e];
    }

  private:
    Index first_ = 0, size_ = 0;
    std::vector<double> values_;
};

// Runs sum(k, sums[k]) for all parts and adds their sums to `out` in order. Returns the first failure
// (a cluster, as `sum` counts them) or -1.
template <class Sum>
Index add_unit_totals(Index n_parts, int n_threads, Interrupt& interrupt, double* out, const Sum& sum) {
    std::vector<UnitSums> sums(static_cast<std::size_t>(n_parts));
    std::vector<Index> failed(sums.size(), -1);
    parallel_for(n_parts, n_threads, interrupt, [&](Index k) { failed[k] = sum(k, sums[k]); });
    for (const UnitSums& part : sums) part.add_to(out);
    const auto first = std::find_if(failed.begin(), failed.end(), [](Index f) { return f >= 0; });
    return first == failed.end() ? -1 : *first;
}

}  // namespace lmmfast
