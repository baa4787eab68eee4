// Nested engine: factors that form a chain, independent residuals with known weights.
//
// One sweep from the innermost units outwards gives all totals (docs/nested.md), at a cost linear in the
// number of units of all levels and free of the number of rows.
#pragma once

#include "lmmfast/base/parallel.hpp"
#include "lmmfast/engines/dense/input.hpp"
#include "lmmfast/engines/moments/moments.hpp"
#include "lmmfast/engines/nested/inner.hpp"
#include "lmmfast/engines/nested/sweep.hpp"

namespace lmmfast {

namespace detail {

// Where the parameters of the sweep stand among vech(Ddot) of all columns and those of the residuals.
inline std::vector<int> parameter_places(const NestedTree& tree) {
    const int q = tree.q();
    std::vector<int> at;
    for (int l = tree.depth(); l-- > 0;) {
        const std::vector<int>& columns = tree.levels[l].columns;
        for (const VechEntry& e : vech_entries(tree.levels[l].q())) {
            const auto [low, high] = std::minmax(columns[e.a], columns[e.b]);
            at.push_back(pair_index(low, high, q));
        }
        if (l + 1 == tree.depth())
            for (int k = 0; k < tree.K_R; ++k) at.push_back(n_pairs(q) + k);
    }
    return at;
}

// Sums over all units -> totals by the full vech(Ddot), zero between columns of different factors.
inline std::vector<double> assemble_nested(const NestedTree& tree, const TotalLayout& layout,
                                           const double* sums) {
    const int p1 = tree.p1;
    const DenseTotalsLayout full{n_pairs(tree.q()) + tree.K_R, p1, layout.with_kr};
    std::vector<double> out(static_cast<std::size_t>(full.size()), 0.0);
    const std::vector<int> at = parameter_places(tree);
    const auto mirror = [p1](const double* upper, double* whole) {
        for (int i = 0; i < p1; ++i)
            for (int j = i; j < p1; ++j) whole[i * p1 + j] = whole[j * p1 + i] = *upper++;
    };
    out[0] = sums[layout.logdet()];
    mirror(sums + layout.gram(), &out[full.gram()]);
    for (int k = 0; k < layout.K; ++k) {
        out[full.trace(at[k])] = sums[layout.trace() + k];
        mirror(sums + layout.quad(k), &out[full.quad(at[k])]);
        for (int l = k; l < layout.K; ++l) {
            out[full.info(at[k], at[l])] = out[full.info(at[l], at[k])] = sums[layout.info(k, l)];
            if (!layout.with_kr) continue;
            const double* kr = sums + layout.kr() + Index{p1} * p1 * pair_index(k, l, layout.K);
            for (int i = 0; i < p1; ++i)
                for (int j = 0; j < p1; ++j)
                    out[full.kr(at[k], at[l]) + i * p1 + j] = out[full.kr(at[l], at[k]) + j * p1 + i] =
                        kr[i * p1 + j];
        }
    }
    return out;
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

// The sums of all tasks, each written by sweep(tasks, k, out), in an order that the data alone decide.
template <class Sweep>
std::vector<double> sum_nested(const NestedTree& tree, Index n_inner_blocks, bool with_kr, int n_threads,
                               Interrupt& interrupt, const Sweep& sweep) {
    const TotalLayout layout = tree.total(with_kr);
    const NestedTasks tasks(tree, n_inner_blocks, layout.size());
    std::vector<double> partial(static_cast<std::size_t>(tasks.n_sums * layout.size()), 0.0);
    parallel_for(tasks.n_sums, n_threads, interrupt,
                 [&](Index k) { sweep(tasks, k, partial.data() + k * layout.size()); });
    for (Index k = 1; k < tasks.n_sums; ++k)
        for (Index e = 0; e < layout.size(); ++e) partial[e] += partial[k * layout.size() + e];
    return assemble_nested(tree, layout, partial.data());
}

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

// Totals at Ddot = Lambda Lambda' (q, q), Lambda block-diagonal by factor, in the order of Totals. The same
// bits for any number of threads. `record`, if given, receives what random effects need.
inline std::vector<double> evaluate_nested(const NestedTree& tree, const ClusterBlocks& clusters,
                                           const double* Lambda, bool with_kr, int n_threads,
                                           Interrupt& interrupt, NestedRecord* record = nullptr) {
    const UnitLayout inner = tree.handed_out(tree.depth() - 1, with_kr);
    const int threads = detail::is_short_nested_pass(tree, inner, clusters.n_blocks) ? 1 : n_threads;
    return detail::sum_nested(tree, clusters.n_blocks, with_kr, threads, interrupt,
                              [&](const detail::NestedTasks& tasks, Index k, double* out) {
                                  detail::sweep_nested_sized(tree, clusters, Lambda, tasks, k, with_kr,
                                                             record, interrupt, out);
                              });
}

}  // namespace lmmfast
