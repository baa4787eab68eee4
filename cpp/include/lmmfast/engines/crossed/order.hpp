// In which order the levels of crossed grouping factors are eliminated.
#pragma once

#include "lmmfast/engines/crossed/graph.hpp"

namespace lmmfast {

// The first n_sparse nodes of `order` have sparse columns; the rest is one dense block.
struct EliminationOrder {
    std::vector<std::int32_t> order;
    Index n_sparse = 0;
};

struct DenseLimits {
    Index any = 600;              // effects that are cheap as a dense block, however sparse it is
    Index most = 16000;           // effects whose dense block fits into memory
    double density = 0.1;         // of the Schur complement, from which on it is taken as dense
    Index entries = 250'000'000;  // of the sparse columns: some 24 bytes each
};

namespace detail {

// Estimated share of pairs of the nodes `rest` that are neighbours or share one of `eliminated`, from some of
// them.
inline double schur_density(const Graph& graph, const std::vector<char>& eliminated,
                            const std::vector<std::int32_t>& rest) {
    constexpr std::size_t n_samples = 64;
    const auto count = std::min(n_samples, rest.size());
    std::vector<std::int32_t> mark(static_cast<std::size_t>(graph.size()), -1);
    double met = 0.0;
    for (std::size_t sample = 0; sample < count; ++sample) {
        const std::int32_t node = rest[sample * rest.size() / count];
        const auto add = [&](std::int32_t other) {
            const auto k = static_cast<std::size_t>(other);
            if (!eliminated[k] && std::exchange(mark[k], node) != node) met += 1.0;
        };
        for (const std::int32_t near : graph.of(node)) {
            add(near);
            if (eliminated[static_cast<std::size_t>(near)])
                for (const std::int32_t other : graph.of(near)) add(other);
        }
    }
    return met / (static_cast<double>(count) * static_cast<double>(rest.size()));
}

// Where the last columns begin that are together filled at least by half.
inline Index filled_part(const Graph& columns, const std::vector<Index>& sizes, Index most) {
    double filled = 0.0, effects = 0.0;
    Index begin = columns.size();
    for (Index k = columns.size() - 1; k >= 0; --k) {
        const auto q = static_cast<double>(sizes[static_cast<std::size_t>(k)]);
        double below = 0.0;
        for (const std::int32_t node : columns.of(k))
            below += static_cast<double>(sizes[static_cast<std::size_t>(node)]);
        filled += q * (q + below);
        effects += q;
        if (effects > static_cast<double>(most)) break;
        if (filled >= 0.25 * effects * effects) begin = k;
    }
    return begin;
}

}  // namespace detail

// `leading`: factors that may go first, each nested in the next one. sizes: effects per node, in natural
// order (levels of factor 0, of factor 1, …).
inline EliminationOrder choose_order(const Graph& graph, const std::vector<Index>& first,
                                     const std::vector<int>& leading, const std::vector<Index>& sizes,
                                     const DenseLimits& limits) {
    EliminationOrder out;
    std::vector<char> eliminated(static_cast<std::size_t>(graph.size()), 0);
    for (const int f : leading)
        for (Index v = first[static_cast<std::size_t>(f)]; v < first[static_cast<std::size_t>(f) + 1]; ++v) {
            out.order.push_back(static_cast<std::int32_t>(v));
            eliminated[static_cast<std::size_t>(v)] = 1;
        }
    out.n_sparse = static_cast<Index>(out.order.size());
    Index effects = 0;
    for (Index v = 0; v < graph.size(); ++v)
        if (!eliminated[static_cast<std::size_t>(v)]) {
            out.order.push_back(static_cast<std::int32_t>(v));
            effects += sizes[static_cast<std::size_t>(v)];
        }
    const std::vector<std::int32_t> rest(out.order.begin() + out.n_sparse, out.order.end());
    if (effects <= limits.any) return out;
    if (effects <= limits.most && detail::schur_density(graph, eliminated, rest) >= limits.density)
        return out;
    out.order = minimum_degree(graph);
    std::vector<Index> ordered(out.order.size());
    for (std::size_t k = 0; k < ordered.size(); ++k)
        ordered[k] = sizes[static_cast<std::size_t>(out.order[k])];
    const Graph columns = factor_columns(graph, out.order, graph.size(), limits.entries);
    out.n_sparse = detail::filled_part(columns, ordered, limits.most);
    return out;
}

}  // namespace lmmfast
