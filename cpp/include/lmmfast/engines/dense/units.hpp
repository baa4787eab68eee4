// The dense engine where totals are wanted for each of some units that clusters lie in.
#pragma once

#include "lmmfast/engines/dense/dense.hpp"
#include "lmmfast/engines/nested/unit_totals.hpp"

namespace lmmfast {

namespace detail {

template <class Algebra>
Index sum_patterns_by_unit(const DenseBucket& bucket, const DenseCovariance& covariance,
                           const DenseTotalsLayout& layout, const std::int64_t* unit, Index begin, Index end,
                           Interrupt& interrupt, UnitSums& out) {
    constexpr int width = ScalarOf<typename Algebra::Scalar>::width;
    const auto [low, high] = std::minmax_element(unit + begin * bucket.n_lanes, unit + end * bucket.n_lanes);
    out = UnitSums(*low, *high, layout.size());
    DenseSums<Algebra> sums(bucket, covariance, layout);
    std::vector<double> of_lanes(static_cast<std::size_t>(width * layout.size()));
    for (Index pack = begin; pack < end; ++pack) {
        if (pack % Algebra::units_between_checks == 0) interrupt.check();
        for (int lane = 0; lane < bucket.n_lanes; lane += width) {
            const int failed = sums.add(pack, lane, 0, bucket.reps);
            if (failed >= 0) return pack * bucket.n_lanes + failed;
            sums.take(of_lanes.data());
            for (int w = 0; w < width; ++w) {
                double* to = out.of(unit[pack * bucket.n_lanes + lane + w]);
                for (Index e = 0; e < layout.size(); ++e) to[e] += of_lanes[w * layout.size() + e];
            }
        }
    }
    for (Index i = *low; i <= *high; ++i) complete(layout, out.of(i));
    return -1;
}

}  // namespace detail

// Adds the totals of each unit, kr among them, to out (n_units, size). Patterns are of one unit each, that of
// pattern (pack, lane) is unit[pack * n_lanes + lane]; unused lanes add nothing to theirs. Returns the first
// pattern of which V is not positive definite, or -1.
inline Index dense_unit_totals(const DenseBucket& bucket, const DenseCovariance& covariance,
                               const std::int64_t* unit, double* out, int n_threads, Interrupt& interrupt) {
    const int K_R = n_residual_params(bucket, covariance);
    const DenseTotalsLayout layout{n_pairs(bucket.q) + K_R, bucket.p1, true};
    const Index n_parts = std::clamp<Index>(bucket.n_packs / 8, 1, 64);
    const auto sum = bucket.n_lanes == 1 ? &detail::sum_patterns_by_unit<BlockedAlgebra>
                                         : &detail::sum_patterns_by_unit<LaneAlgebra>;
    return add_unit_totals(n_parts, n_threads, interrupt, out, [&](Index k, UnitSums& sums) {
        return sum(bucket, covariance, layout, unit, k * bucket.n_packs / n_parts,
                   (k + 1) * bucket.n_packs / n_parts, interrupt, sums);
    });
}

}  // namespace lmmfast
