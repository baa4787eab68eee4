// Levels of several grouping factors as the nodes of a graph: two are neighbours where rows have both.
#pragma once

#include <Eigen/OrderingMethods>
#include <Eigen/SparseCore>
#include <algorithm>
#include <new>
#include <numeric>
#include <vector>

#include "lmmfast/engines/crossed/pairs.hpp"

namespace lmmfast {

// Neighbours of node v: next[ptr[v]] … next[ptr[v+1]-1].
struct Graph {
    std::vector<Index> ptr;
    std::vector<std::int32_t> next;

    Index size() const { return static_cast<Index>(ptr.size()) - 1; }
    std::span<const std::int32_t> of(Index v) const {
        const auto k = static_cast<std::size_t>(v);
        return std::span(next).subspan(static_cast<std::size_t>(ptr[k]),
                                       static_cast<std::size_t>(ptr[k + 1] - ptr[k]));
    }
};

// The pairs of levels of factors a < b that meet; the levels of factor f are the nodes from first[f] on.
struct FactorPair {
    int a, b;
    LevelPairs levels;
};

inline Graph level_graph(const std::vector<FactorPair>& pairs, const std::vector<Index>& first) {
    Graph graph;
    graph.ptr.assign(static_cast<std::size_t>(first.back()) + 1, 0);
    const auto each = [&](const auto& visit) {
        for (const auto& [a, b, levels] : pairs)
            for (std::size_t i = 0; i + 1 < levels.ptr.size(); ++i)
                for (Index k = levels.ptr[i]; k < levels.ptr[i + 1]; ++k)
                    visit(first[static_cast<std::size_t>(a)] + static_cast<Index>(i),
                          first[static_cast<std::size_t>(b)] + levels.other[static_cast<std::size_t>(k)]);
    };
    each([&](Index u, Index v) {
        ++graph.ptr[static_cast<std::size_t>(u) + 1];
        ++graph.ptr[static_cast<std::size_t>(v) + 1];
    });
    std::partial_sum(graph.ptr.begin(), graph.ptr.end(), graph.ptr.begin());
    graph.next.resize(static_cast<std::size_t>(graph.ptr.back()));
    std::vector<Index> to(graph.ptr.begin(), graph.ptr.end() - 1);
    each([&](Index u, Index v) {
        graph.next[static_cast<std::size_t>(to[static_cast<std::size_t>(u)]++)] =
            static_cast<std::int32_t>(v);
        graph.next[static_cast<std::size_t>(to[static_cast<std::size_t>(v)]++)] =
            static_cast<std::int32_t>(u);
    });
    return graph;
}

// Nodes in the order of minimum degree.
inline std::vector<std::int32_t> minimum_degree(const Graph& graph) {
    using Sparse = Eigen::SparseMatrix<double, Eigen::ColMajor, std::int32_t>;
    const auto n = static_cast<std::int32_t>(graph.size());
    Sparse pattern(n, n);
    std::vector<Eigen::Triplet<double, std::int32_t>> entries;
    entries.reserve(graph.next.size() + static_cast<std::size_t>(n));
    for (std::int32_t v = 0; v < n; ++v) {
        entries.emplace_back(v, v, 1.0);
        for (const std::int32_t u : graph.of(v)) entries.emplace_back(u, v, 1.0);
    }
    pattern.setFromTriplets(entries.begin(), entries.end());
    Eigen::PermutationMatrix<Eigen::Dynamic, Eigen::Dynamic, std::int32_t> perm;
    Eigen::AMDOrdering<std::int32_t>()(pattern.selfadjointView<Eigen::Lower>(), perm);
    return {perm.indices().data(), perm.indices().data() + n};
}

// Parents (-1: none) in the elimination tree of the nodes eliminated in this order, by position in it
// (Liu 1990): the parent is the first later node that a node's column of the factor reaches.
inline std::vector<std::int32_t> elimination_tree(const Graph& graph, const std::vector<std::int32_t>& order,
                                                  const std::vector<std::int32_t>& position) {
    const auto n = order.size();
    std::vector<std::int32_t> parent(n, -1), ancestor(n, -1);
    for (std::size_t j = 0; j < n; ++j)
        for (const std::int32_t u : graph.of(order[j])) {
            auto i = static_cast<std::size_t>(position[static_cast<std::size_t>(u)]);
            while (i < j) {
                const std::int32_t up = std::exchange(ancestor[i], static_cast<std::int32_t>(j));
                if (up < 0) {
                    parent[i] = static_cast<std::int32_t>(j);
                    break;
                }
                i = static_cast<std::size_t>(up);
            }
        }
    return parent;
}

inline std::vector<std::int32_t> inverse_order(const std::vector<std::int32_t>& order) {
    std::vector<std::int32_t> position(order.size());
    for (std::size_t k = 0; k < order.size(); ++k)
        position[static_cast<std::size_t>(order[k])] = static_cast<std::int32_t>(k);
    return position;
}

// The same elimination with the first n_sparse nodes in stages: nodes of one stage do not depend on each
// other. Returns where stages begin, n_sparse last.
inline std::vector<Index> sort_by_height(const Graph& graph, std::vector<std::int32_t>& order,
                                         Index n_sparse) {
    const auto position = inverse_order(order);
    const auto parent = elimination_tree(graph, order, position);
    const auto n = static_cast<std::size_t>(n_sparse);
    std::vector<std::int32_t> height(n, 0), sorted(n);
    for (std::size_t k = 0; k < n; ++k)
        if (const std::int32_t up = parent[k]; up >= 0 && up < n_sparse) {
            auto& above = height[static_cast<std::size_t>(up)];
            above = std::max(above, height[k] + 1);
        }
    std::iota(sorted.begin(), sorted.end(), 0);
    std::stable_sort(sorted.begin(), sorted.end(), [&](std::int32_t i, std::int32_t j) {
        return height[static_cast<std::size_t>(i)] < height[static_cast<std::size_t>(j)];
    });
    std::vector<Index> stages{0};
    for (std::size_t k = 1; k < n; ++k)
        if (height[static_cast<std::size_t>(sorted[k])] != height[static_cast<std::size_t>(sorted[k - 1])])
            stages.push_back(static_cast<Index>(k));
    if (n > 0) stages.push_back(n_sparse);
    const auto before = order;
    for (std::size_t k = 0; k < n; ++k) order[k] = before[static_cast<std::size_t>(sorted[k])];
    return stages;
}

// Later nodes, ascending, that the column of each of the first n_sparse nodes reaches: its neighbours and
// what its children in the elimination tree reach. Throws bad_alloc where they are more than `most` in all.
inline Graph factor_columns(const Graph& graph, const std::vector<std::int32_t>& order, Index n_sparse,
                            Index most) {
    const auto position = inverse_order(order);
    const auto n = static_cast<std::size_t>(n_sparse);
    Graph columns;
    columns.ptr.assign(n + 1, 0);
    std::vector<std::vector<std::int32_t>> children(n);
    std::vector<std::int32_t> mark(order.size(), -1), found;
    for (std::size_t k = 0; k < n; ++k) {
        const auto self = static_cast<std::int32_t>(k);
        found.clear();
        const auto add = [&](std::int32_t node) {
            if (node > self && std::exchange(mark[static_cast<std::size_t>(node)], self) != self)
                found.push_back(node);
        };
        for (const std::int32_t u : graph.of(order[k])) add(position[static_cast<std::size_t>(u)]);
        for (const std::int32_t child : children[k])
            for (const std::int32_t node : columns.of(child)) add(node);
        std::vector<std::int32_t>().swap(children[k]);
        std::sort(found.begin(), found.end());
        if (!found.empty() && found.front() < n_sparse)
            children[static_cast<std::size_t>(found.front())].push_back(self);
        columns.next.insert(columns.next.end(), found.begin(), found.end());
        columns.ptr[k + 1] = static_cast<Index>(columns.next.size());
        if (columns.ptr[k + 1] > most) throw std::bad_alloc();
    }
    return columns;
}

}  // namespace lmmfast
