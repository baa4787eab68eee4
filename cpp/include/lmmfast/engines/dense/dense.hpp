// Dense engine: any Rdot; forms Vdot of each pattern and factorises it.
#pragma once

#include <algorithm>
#include <limits>

#include "lmmfast/base/parallel.hpp"
#include "lmmfast/engines/dense/blocked.hpp"
#include "lmmfast/engines/dense/effects.hpp"
#include "lmmfast/engines/dense/lanes.hpp"
#include "lmmfast/engines/dense/sums.hpp"

namespace lmmfast {

// Patterns of one size, and the covariance of their rows.
struct DensePart {
    DenseBucket bucket;
    DenseCovariance covariance;
};

struct DenseTotals {
    std::vector<double> values;  // DenseTotalsLayout; NaN where a V is not positive definite
    Index part = -1;             // the first part that has such a V, or -1
    Index failed = -1;           // the first such pattern in it, pack * n_lanes + lane
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
template <class Sums>
Index sum_dense_units(const DenseBucket& bucket, const DenseCovariance& covariance,
                      const typename Sums::Layout& layout, Index begin, Index end, Interrupt& interrupt,
                      double* out) {
    using Algebra = typename Sums::Algebra;
    const DenseUnits units(bucket);
    Sums sums(bucket, covariance, layout);
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

// How long a pass over a part takes, counted in operations on packs.
inline Index dense_operations(const DensePart& part, int K_R) {
    const DenseBucket& bucket = part.bucket;
    const Index n = bucket.n, factor = n * n * n * (1 + K_R),
                cluster = n * (n + bucket.p1) * bucket.p1 * (1 + K_R);
    return bucket.n_packs * (factor + bucket.reps * cluster);
}

// Part of a sum over parts: some units of one of them.
struct DenseTask {
    Index part, begin, end;
    Index failed = -1;
};

// Tasks of a part. Their number depends on the data alone.
inline void append_tasks(const DensePart& part, Index number, Index size, std::vector<DenseTask>& tasks) {
    const Index n_units = DenseUnits(part.bucket).size();
    // Large patterns are worth a sum each.
    const Index n_sums = n_partial_sums(part.bucket.n_lanes == 1 ? n_units * 32 : n_units, size);
    for (Index k = 0; k < n_sums; ++k)
        tasks.push_back({number, k * n_units / n_sums, (k + 1) * n_units / n_sums});
}

// The sums of tasks, in their order, are added to total.
template <template <class> class Sums, class Layout>
void run_dense_tasks(const std::vector<DensePart>& parts, const Layout& layout, std::vector<DenseTask>& tasks,
                     int n_threads, Interrupt& interrupt, double* total) {
    const Index size = layout.size(), n_tasks = static_cast<Index>(tasks.size());
    std::vector<double> partial(static_cast<std::size_t>(n_tasks * size));
    parallel_for(n_tasks, n_threads, interrupt, [&](Index k) {
        const Index last_first = n_tasks - 1 - k;  // the last parts tend to have the largest clusters
        DenseTask& task = tasks[static_cast<std::size_t>(last_first)];
        const auto& [bucket, covariance] = parts[static_cast<std::size_t>(task.part)];
        const auto sum_units = bucket.n_lanes == 1 ? &sum_dense_units<Sums<BlockedAlgebra>>
                                                   : &sum_dense_units<Sums<LaneAlgebra>>;
        task.failed = sum_units(bucket, covariance, layout, task.begin, task.end, interrupt,
                                partial.data() + last_first * size);
    });
    for (Index k = 0; k < n_tasks; ++k)
        for (Index e = 0; e < size; ++e) total[e] += partial.data()[k * size + e];
}

}  // namespace detail

// Sums of some kind over parts with the same parameters. Threads share the work of all parts.
template <template <class> class Sums, class Layout>
DenseTotals sum_dense_parts(const std::vector<DensePart>& parts, const Layout& layout, int n_threads,
                            Interrupt& interrupt) {
    constexpr Index short_pass = 500000;           // over before further threads would have paid
    constexpr Index max_doubles = Index{1} << 22;  // of the sums that are kept at a time
    const int K_R = n_residual_params(parts.front().bucket, parts.front().covariance);
    const Index size = layout.size(), n_parts = static_cast<Index>(parts.size());
    Index operations = 0;
    for (const DensePart& part : parts) operations += detail::dense_operations(part, K_R);
    const int threads = operations < short_pass ? 1 : n_threads;
    DenseTotals totals{std::vector<double>(static_cast<std::size_t>(size), 0.0)};
    std::vector<detail::DenseTask> tasks;
    for (Index k = 0; k < n_parts; ++k) {
        detail::append_tasks(parts[static_cast<std::size_t>(k)], k, size, tasks);
        if (k + 1 < n_parts && static_cast<Index>(tasks.size()) * size < max_doubles) continue;
        detail::run_dense_tasks<Sums>(parts, layout, tasks, threads, interrupt, totals.values.data());
        for (const detail::DenseTask& task : tasks) {
            if (task.failed < 0) continue;
            std::fill(totals.values.begin(), totals.values.end(), std::numeric_limits<double>::quiet_NaN());
            totals.part = task.part;
            totals.failed = task.failed;
            return totals;
        }
        tasks.clear();
    }
    return totals;
}

// Totals of parts with the same parameters. `counts` multiply what a pattern adds without A.
inline DenseTotals dense_totals(const std::vector<DensePart>& parts, bool with_kr, int n_threads,
                                Interrupt& interrupt) {
    const DenseBucket& first = parts.front().bucket;
    const int K_R = n_residual_params(first, parts.front().covariance);
    const DenseTotalsLayout layout{n_pairs(first.q) + K_R, first.p1, with_kr};
    DenseTotals totals = sum_dense_parts<DenseSums>(parts, layout, n_threads, interrupt);
    detail::complete(layout, totals.values.data());
    return totals;
}

}  // namespace lmmfast
