// Nested engine: factors that form a chain, independent residuals with known weights.
//
// One sweep from the innermost units outwards gives all totals (docs/nested.md), at a cost linear in the
// number of units of all levels and free of the number of rows.
#pragma once

#include "lmmfast/engines/moments.hpp"
#include "lmmfast/engines/nested_inner.hpp"
#include "lmmfast/engines/nested_sweep.hpp"
#include "lmmfast/parallel.hpp"
#include "lmmfast/totals.hpp"

namespace lmmfast {

namespace detail {

// Sums over all units -> Totals by the full vech(Ddot); zero between columns of different factors.
inline Totals assemble_nested(const NestedTree& tree, const TotalLayout& layout, const double* sums) {
    const int q = tree.q(), p1 = tree.p1, K_full = n_pairs(q);
    Totals totals(q, p1, layout.with_kr);
    std::vector<int> at;
    for (int l = tree.depth(); l-- > 0;) {
        const std::vector<int>& columns = tree.levels[l].columns;
        for (const VechEntry& e : vech_entries(tree.levels[l].q())) {
            const auto [low, high] = std::minmax(columns[e.a], columns[e.b]);
            at.push_back(pair_index(low, high, q));
        }
    }
    const auto mirror = [p1](const double* upper, double* full) {
        for (int i = 0; i < p1; ++i)
            for (int j = i; j < p1; ++j) full[i * p1 + j] = full[j * p1 + i] = *upper++;
    };
    totals.logdet() = sums[layout.logdet()];
    mirror(sums + layout.gram(), totals.gram());
    for (int k = 0; k < layout.K; ++k) {
        totals.trace()[at[k]] = sums[layout.trace() + k];
        mirror(sums + layout.quad(k), totals.quad(at[k]));
        for (int l = k; l < layout.K; ++l) {
            totals.info()[at[k] * K_full + at[l]] = totals.info()[at[l] * K_full + at[k]] =
                sums[layout.info(k, l)];
            if (!layout.with_kr) continue;
            const double* kr = sums + layout.kr() + Index{p1} * p1 * pair_index(k, l, layout.K);
            for (int i = 0; i < p1; ++i)
                for (int j = 0; j < p1; ++j)
                    totals.kr(at[k], at[l])[i * p1 + j] = totals.kr(at[l], at[k])[j * p1 + i] =
                        kr[i * p1 + j];
        }
    }
    return totals;
}

// Outermost units that a task takes side by side: all lanes where there are enough of them for the threads.
inline Index units_at_once(Index m) {
    return m >= 8 * lanes ? lanes : m >= 2 * lanes ? 2 : 1;
}

// call(begin, end, k) for the outermost units of each of the partial sums, whose number depends on the data
// alone.
struct NestedTasks {
    Index m, at_once, n_sums;

    NestedTasks(const NestedTree& tree, Index n_inner_blocks, Index doubles_each) : m(tree.levels[0].m) {
        constexpr Index min_blocks = 64;
        at_once = units_at_once(m);
        const Index n_steps = (m + at_once - 1) / at_once;
        n_sums = std::min(n_steps, n_partial_sums(n_inner_blocks + n_steps * min_blocks / 2, doubles_each));
    }
    template <class Call>
    void each(Index k, const Call& call) const {
        const Index n_steps = (m + at_once - 1) / at_once;
        for (Index step = k * n_steps / n_sums; step < (k + 1) * n_steps / n_sums; ++step)
            call(step * at_once, std::min(at_once, m - step * at_once));
    }
};

inline bool is_short_nested_pass(const NestedTree& tree, const UnitLayout& inner, Index n_inner_blocks) {
    constexpr double short_pass = 200000;
    Index n_units = 0;
    for (int l = 0; l + 1 < tree.depth(); ++l) n_units += tree.levels[l].m;
    const double each = n_pairs(inner.P) * (1.0 + inner.K);
    return static_cast<double>(n_inner_blocks + n_units) * each < short_pass;
}

template <int Q, int P>
void sweep_nested(const NestedTree& tree, const ClusterBlocks& clusters, const double* Lambda,
                  const NestedTasks& tasks, Index k, bool with_kr, NestedRecord* record, Interrupt& interrupt,
                  double* out) {
    const std::vector<double> own = own_block(tree.levels.back(), Lambda, tree.q());
    InnerSums<Q, P> inner(tree, clusters, own.data(), with_kr);
    NestedSweep<InnerSums<Q, P>> sweep(tree, Lambda, with_kr, inner, record);
    tasks.each(k, [&](Index first, Index n) {
        interrupt.check();
        sweep.add(first, n);
    });
    sweep.finish(out);
}

// Sizes known at compile time where there is one effect a level and few columns.
inline void sweep_nested_sized(const NestedTree& tree, const ClusterBlocks& clusters, const double* Lambda,
                               const NestedTasks& tasks, Index k, bool with_kr, NestedRecord* record,
                               Interrupt& interrupt, double* out) {
    const auto [q, p] = clusters.layout;
    const auto sweep = [&](auto Q, auto P) {
        sweep_nested<Q.value, P.value>(tree, clusters, Lambda, tasks, k, with_kr, record, interrupt, out);
    };
    if (q == 1)
        with_fixed_size<max_fixed_p1>(p, [&](auto P) { sweep(std::integral_constant<int, 1>{}, P); });
    else if (q == 2)
        sweep(std::integral_constant<int, 2>{}, std::integral_constant<int, 0>{});
    else
        sweep(std::integral_constant<int, 0>{}, std::integral_constant<int, 0>{});
}

}  // namespace detail

// Totals at Ddot = Lambda Lambda' (q, q), Lambda block-diagonal by factor. The same bits for any number of
// threads. `record`, if given, receives what random effects need.
inline Totals evaluate_nested(const NestedTree& tree, const ClusterBlocks& clusters, const double* Lambda,
                              bool with_kr, int n_threads, Interrupt& interrupt,
                              NestedRecord* record = nullptr) {
    const TotalLayout layout = tree.total(with_kr);
    const UnitLayout inner = tree.handed_out(tree.depth() - 1, with_kr);
    const detail::NestedTasks tasks(tree, clusters.n_blocks, layout.size());
    std::vector<double> partial(static_cast<std::size_t>(tasks.n_sums * layout.size()), 0.0);
    const int threads = detail::is_short_nested_pass(tree, inner, clusters.n_blocks) ? 1 : n_threads;
    parallel_for(tasks.n_sums, threads, interrupt, [&](Index k) {
        detail::sweep_nested_sized(tree, clusters, Lambda, tasks, k, with_kr, record, interrupt,
                                   partial.data() + k * layout.size());
    });
    for (Index k = 1; k < tasks.n_sums; ++k)
        for (Index e = 0; e < layout.size(); ++e) partial[e] += partial[k * layout.size() + e];
    return detail::assemble_nested(tree, layout, partial.data());
}

}  // namespace lmmfast
