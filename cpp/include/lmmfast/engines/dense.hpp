// Dense engine: any Rdot; forms Vdot of each pattern and factorises it.
#pragma once

#include <algorithm>
#include <limits>

#include "lmmfast/engines/dense_blocked.hpp"
#include "lmmfast/engines/dense_effects.hpp"
#include "lmmfast/engines/dense_lanes.hpp"
#include "lmmfast/engines/dense_sums.hpp"
#include "lmmfast/parallel.hpp"

namespace lmmfast {

struct DenseTotals {
    std::vector<double> values;  // DenseTotalsLayout; NaN where a V is not positive definite
    Index failed = -1;           // the first such pattern, pack * n_lanes + lane, or -1
};

namespace detail {

// Work of the dense engine in units: a part of the clusters of one pack's patterns each, so that many
// clusters of few patterns are shared between threads as well.
struct DenseUnits {
    Index n_packs, reps, parts;

    explicit DenseUnits(const DenseBucket& bucket)
        : n_packs(bucket.n_packs),
          reps(bucket.reps),
          parts(bucket.n_lanes == 1 ? 1 : std::max<Index>(1, bucket.reps / 256)) {}

    Index size() const { return n_packs * parts; }
    Index pack(Index unit) const { return unit / parts; }
    Index begin(Index unit) const { return unit % parts * reps / parts; }
    Index end(Index unit) const { return (unit % parts + 1) * reps / parts; }
};

// Units begin … end - 1 into out. Returns the first pattern that fails, or -1.
template <class Algebra>
Index sum_dense_units(const DenseBucket& bucket, const DenseCovariance& covariance,
                      const DenseTotalsLayout& layout, Index begin, Index end, Interrupt& interrupt,
                      double* out) {
    const DenseUnits units(bucket);
    DenseSums<Algebra> sums(bucket, covariance, layout);
    for (Index unit = begin; unit < end; ++unit) {
        if (unit % Algebra::units_between_checks == 0) interrupt.check();
        const Index pack = units.pack(unit);
        for (int lane = 0; lane < bucket.n_lanes; lane += ScalarOf<typename Algebra::Scalar>::width) {
            const int failed = sums.add(pack, lane, units.begin(unit), units.end(unit));
            if (failed >= 0) return pack * bucket.n_lanes + failed;
        }
    }
    sums.write(out);
    return -1;
}

// Lower triangles to whole matrices.
inline void complete(const DenseTotalsLayout& layout, double* values) {
    const auto [K, p1, with_kr] = layout;
    const auto mirror = [p = Index{p1}](double* square) {
        for (Index i = 0; i < p; ++i)
            for (Index j = 0; j < i; ++j) square[j * p + i] = square[i * p + j];
    };
    for (int k = -1; k < K; ++k) mirror(values + layout.quad(k));  // gram stands before quad
    for (int k = 0; k < K; ++k)
        for (int l = 0; l < k; ++l) {
            values[layout.info(k, l)] = values[layout.info(l, k)];
            if (!with_kr) continue;
            for (Index i = 0; i < p1; ++i)
                for (Index j = 0; j < p1; ++j)
                    values[layout.kr(k, l) + i * p1 + j] = values[layout.kr(l, k) + j * p1 + i];
        }
}

// Whether a pass is over before further threads would have paid, counted in operations on packs.
inline bool is_short_dense_pass(const DenseBucket& bucket, int K_R) {
    constexpr Index short_pass = 500000;
    const Index n = bucket.n, factor = n * n * n * (1 + K_R),
                cluster = n * (n + bucket.p1) * bucket.p1 * (1 + K_R);
    return bucket.n_packs * (factor + bucket.reps * cluster) < short_pass;
}

}  // namespace detail

// Totals of a bucket. `counts` multiply what a pattern adds without A.
inline DenseTotals dense_totals(const DenseBucket& bucket, const DenseCovariance& covariance, bool with_kr,
                                int n_threads, Interrupt& interrupt) {
    const int K_R = n_residual_params(bucket, covariance);
    const DenseTotalsLayout layout{n_pairs(bucket.q) + K_R, bucket.p1, with_kr};
    const Index n_units = detail::DenseUnits(bucket).size(), size = layout.size();
    // Large patterns are worth a sum each.
    const Index n_sums = n_partial_sums(bucket.n_lanes == 1 ? n_units * 32 : n_units, size);
    std::vector<double> partial(static_cast<std::size_t>(n_sums * size));
    std::vector<Index> failed(static_cast<std::size_t>(n_sums), -1);
    const int threads = detail::is_short_dense_pass(bucket, K_R) ? 1 : n_threads;
    const auto sum_units = bucket.n_lanes == 1 ? &detail::sum_dense_units<BlockedAlgebra>
                                               : &detail::sum_dense_units<LaneAlgebra>;
    parallel_for(n_sums, threads, interrupt, [&](Index k) {
        failed[static_cast<std::size_t>(k)] =
            sum_units(bucket, covariance, layout, k * n_units / n_sums, (k + 1) * n_units / n_sums, interrupt,
                      partial.data() + k * size);
    });
    const auto first = std::find_if(failed.begin(), failed.end(), [](Index f) { return f >= 0; });
    if (first != failed.end())
        return {std::vector<double>(static_cast<std::size_t>(size), std::numeric_limits<double>::quiet_NaN()),
                *first};
    for (Index k = 1; k < n_sums; ++k)
        for (Index e = 0; e < size; ++e) partial.data()[e] += partial.data()[k * size + e];
    partial.resize(static_cast<std::size_t>(size));
    detail::complete(layout, partial.data());
    return {std::move(partial), -1};
}

}  // namespace lmmfast
