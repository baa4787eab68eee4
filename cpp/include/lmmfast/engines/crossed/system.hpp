// Crossed grouping factors: G = Z'WZ by pairs of levels that meet, Z'WA and A'WA, in the order in which the
// effects are eliminated. Everything else needs nothing of the rows.
#pragma once

#include <memory>
#include <stdexcept>

#include "lmmfast/base/small_matrix.hpp"
#include "lmmfast/engines/crossed/order.hpp"

namespace lmmfast {

// Columns of a sparse matrix below the diagonal blocks of nodes. Node k reaches the effects
// row[ptr[k]] … row[ptr[k+1]-1], ascending; its values are q_k runs of that length from value(k) on.
struct NodeColumns {
    std::vector<Index> ptr;
    std::vector<std::int32_t> row;
    std::vector<Index> value;

    Index length(Index k) const {
        return ptr[static_cast<std::size_t>(k) + 1] - ptr[static_cast<std::size_t>(k)];
    }
    const std::int32_t* rows(Index k) const { return row.data() + ptr[static_cast<std::size_t>(k)]; }
    Index start(Index k) const { return value[static_cast<std::size_t>(k)]; }
};

// What a factor contributes: its levels and the columns of Z whose effects they have.
struct CrossedFactor {
    Codes codes;  // (n,)
    Index m = 0;
    std::vector<int> columns;

    int q() const { return static_cast<int>(columns.size()); }
};

class CrossedSystem {
  public:
    // leading: factors that go first, each nested in the next one.
    CrossedSystem(std::vector<CrossedFactor> factors, const std::vector<int>& leading, int p1,
                  const DenseLimits& limits, int n_threads, Interrupt& interrupt)
        : p1_(p1), factors_(std::move(factors)) {
        number_levels();
        pair_levels(n_threads, interrupt);
        const Graph graph = level_graph(pairs_, first_);
        auto [order, n_sparse] = choose_order(graph, first_, leading, sizes_, limits);
        n_sparse_ = n_sparse;
        stages_ = sort_by_height(graph, order, n_sparse);
        place_nodes(order);
        G_ = node_columns(later_neighbours(graph, order), n_nodes());
        L_ = node_columns(factor_columns(graph, order, n_sparse, limits.entries), n_sparse);
        list_reaching();
        place_pairs(n_threads, interrupt);
        G_values_.assign(static_cast<std::size_t>(G_.value.back()), 0.0);
        G_diag_.assign(static_cast<std::size_t>(diag_.back()), 0.0);
        B_.assign(static_cast<std::size_t>(n_effects() * p1), 0.0);
        gram_.assign(static_cast<std::size_t>(p1 * p1), 0.0);
    }

    // RowMatrix begin … begin + n - 1: A (n, p1) and Z (n, q) row by row, weights (n,) or null.
    void add_rows(const double* A, const double* Z, const double* weights, Index begin, Index n, int q,
                  int n_threads, Interrupt& interrupt) {
        const auto n_factors = static_cast<Index>(factors_.size());
        const auto n_pairs = static_cast<Index>(pairs_.size());
        // Each task fills arrays of its own, row after row: the same sums for any number of threads.
        parallel_for(n_pairs + n_factors + 1, n < 1024 ? 1 : n_threads, interrupt, [&](Index task) {
            if (task < n_pairs)
                add_pair(pairs_[static_cast<std::size_t>(task)], targets_[static_cast<std::size_t>(task)], Z,
                         weights, begin, n, q);
            else if (task < n_pairs + n_factors)
                add_factor(task - n_pairs, A, Z, weights, begin, n, q);
            else
                add_gram(A, weights, n);
        });
    }

    // Forgets what only add_rows needs.
    void finish() {
        std::vector<FactorPair>().swap(pairs_);
        std::vector<Targets>().swap(targets_);
        for (auto& factor : factors_) Codes().swap(factor.codes);
    }

    // G g for g (N, r) row by row.
    void times_G(const double* g, double* out, Index r) const {
        const Eigen::Map<const RowMatrix> in(g, n_effects(), r);
        Eigen::Map<RowMatrix> product(out, n_effects(), r);
        product.setZero();
        for (Index k = 0; k < n_nodes(); ++k) {
            const std::int32_t* rows = G_.rows(k);
            const double* values = G_values(k);
            product.middleRows(offset(k), q(k)) +=
                Eigen::Map<const RowMatrix>(G_diag(k), q(k), q(k)) * in.middleRows(offset(k), q(k));
            for (Index c = 0; c < q(k); ++c)
                for (Index p = 0; p < G_.length(k); ++p) {
                    const double value = *values++;
                    product.row(rows[p]) += value * in.row(offset(k) + c);
                    product.row(offset(k) + c) += value * in.row(rows[p]);
                }
        }
    }

    // Mean over a factor's levels of their blocks of G, (q_f, q_f).
    std::vector<double> mean_G(Index f) const {
        const Index size = Index{factor(f).q()} * factor(f).q();
        std::vector<double> sum(static_cast<std::size_t>(size), 0.0);
        for (Index j = 0; j < factor(f).m; ++j)
            for (Index k = 0; k < size; ++k) sum[static_cast<std::size_t>(k)] += G_diag(node(f, j))[k];
        for (double& value : sum) value /= static_cast<double>(factor(f).m);
        return sum;
    }

    // Whether each factor has levels in the dense block.
    std::vector<bool> has_dense() const {
        std::vector<bool> out(factors_.size(), false);
        for (Index k = n_sparse_; k < n_nodes(); ++k) out[static_cast<std::size_t>(factor_of(k))] = true;
        return out;
    }

    Index n_rows() const { return static_cast<Index>(factors_[0].codes.size()); }
    Index n_nodes() const { return static_cast<Index>(offset_.size()) - 1; }
    Index n_sparse() const { return n_sparse_; }
    Index n_effects() const { return offset_.back(); }
    Index n_dense() const { return n_effects() - offset(n_sparse_); }
    int p1() const { return p1_; }
    int max_q() const { return max_q_; }
    Index n_factors() const { return static_cast<Index>(factors_.size()); }
    const CrossedFactor& factor(Index f) const { return factors_[static_cast<std::size_t>(f)]; }
    int factor_of(Index k) const { return node_factor_[static_cast<std::size_t>(k)]; }
    int q(Index k) const { return factor(factor_of(k)).q(); }
    Index node_of(std::int32_t effect) const { return node_of_[static_cast<std::size_t>(effect)]; }
    Index offset(Index k) const { return offset_[static_cast<std::size_t>(k)]; }
    // Where the values of a node's (q, q) blocks begin.
    Index diag(Index k) const { return diag_[static_cast<std::size_t>(k)]; }
    Index n_diag() const { return diag_.back(); }
    // Node of level j of factor f.
    Index node(Index f, Index j) const {
        return position_[static_cast<std::size_t>(first_[static_cast<std::size_t>(f)] + j)];
    }
    const std::vector<Index>& stages() const { return stages_; }
    const NodeColumns& G() const { return G_; }
    const NodeColumns& L() const { return L_; }
    const double* G_values(Index k) const { return G_values_.data() + G_.start(k); }
    const double* G_diag(Index k) const { return G_diag_.data() + diag(k); }
    const std::vector<double>& B() const { return B_; }
    const std::vector<double>& gram() const { return gram_; }

    // A sparse node whose column reaches a node, and where in its rows the node's effects begin.
    struct Reaching {
        std::int32_t node, at;
    };
    std::span<const Reaching> reaching(Index k) const {
        const auto i = static_cast<std::size_t>(k);
        return std::span(reaching_).subspan(
            static_cast<std::size_t>(reaching_ptr_[i]),
            static_cast<std::size_t>(reaching_ptr_[i + 1] - reaching_ptr_[i]));
    }

  private:
    // Where a pair of levels is kept: from `value` on, effects of the earlier node `stride` apart.
    struct Target {
        Index value;
        std::int32_t stride;
        bool a_first;
    };
    using Targets = std::vector<Target>;

    void number_levels() {
        first_.push_back(0);
        for (const auto& factor : factors_) {
            first_.push_back(first_.back() + factor.m);
            sizes_.insert(sizes_.end(), static_cast<std::size_t>(factor.m), factor.q());
            max_q_ = std::max(max_q_, factor.q());
        }
        if (first_.back() >= std::numeric_limits<std::int32_t>::max() / max_q_)
            throw std::length_error("too many levels");
    }

    void pair_levels(int n_threads, Interrupt& interrupt) {
        for (std::size_t a = 0; a + 1 < factors_.size(); ++a) {
            const Codes& codes = factors_[a].codes;
            std::vector<std::int64_t> ptr(static_cast<std::size_t>(factors_[a].m) + 1), order(codes.size());
            const bool inside =
                counting_sort(std::span<const std::int32_t>(codes), std::int32_t{0}, factors_[a].m,
                              std::span(ptr), std::span(order), n_threads, interrupt);
            if (!inside) throw std::invalid_argument("a code lies outside its factor's levels");
            for (std::size_t b = a + 1; b < factors_.size(); ++b)
                pairs_.push_back(
                    {static_cast<int>(a), static_cast<int>(b),
                     level_pairs(ptr, order, factors_[b].codes, factors_[b].m, n_threads, interrupt)});
        }
    }

    void place_nodes(const std::vector<std::int32_t>& order) {
        position_ = inverse_order(order);
        offset_.assign(1, 0);
        diag_.assign(1, 0);
        for (const std::int32_t natural : order) {
            const auto after = std::upper_bound(first_.begin(), first_.end(), static_cast<Index>(natural));
            node_factor_.push_back(static_cast<std::int32_t>(after - first_.begin()) - 1);
            const Index size = sizes_[static_cast<std::size_t>(natural)];
            offset_.push_back(offset_.back() + size);
            diag_.push_back(diag_.back() + size * size);
        }
    }

    // Of each node, the neighbours that come after it.
    Graph later_neighbours(const Graph& graph, const std::vector<std::int32_t>& order) const {
        Graph out;
        out.ptr.assign(1, 0);
        out.next.reserve(graph.next.size() / 2);
        for (std::size_t k = 0; k < order.size(); ++k) {
            const auto begin = static_cast<std::ptrdiff_t>(out.next.size());
            for (const std::int32_t u : graph.of(order[k])) {
                const std::int32_t at = position_[static_cast<std::size_t>(u)];
                if (at > static_cast<std::int32_t>(k)) out.next.push_back(at);
            }
            std::sort(out.next.begin() + begin, out.next.end());
            out.ptr.push_back(static_cast<Index>(out.next.size()));
        }
        return out;
    }

    NodeColumns node_columns(const Graph& columns, Index n) const {
        NodeColumns out;
        out.ptr.assign(1, 0);
        out.value.assign(1, 0);
        for (Index k = 0; k < n; ++k) {
            for (const std::int32_t node : columns.of(k))
                for (Index at = offset(node); at < offset(node + 1); ++at)
                    out.row.push_back(static_cast<std::int32_t>(at));
            out.ptr.push_back(static_cast<Index>(out.row.size()));
            out.value.push_back(out.value.back() + q(k) * (out.ptr.back() - out.ptr[out.ptr.size() - 2]));
        }
        return out;
    }

    void list_reaching() {
        node_of_.resize(static_cast<std::size_t>(n_effects()));
        for (Index k = 0; k < n_nodes(); ++k)
            std::fill(node_of_.begin() + offset(k), node_of_.begin() + offset(k + 1),
                      static_cast<std::int32_t>(k));
        const auto each = [&](const auto& visit) {
            for (Index k = 0; k < n_sparse_; ++k)
                for (Index at = 0; at < L_.length(k);) {
                    const Index node = node_of(L_.rows(k)[at]);
                    visit(static_cast<std::size_t>(node), static_cast<std::int32_t>(k),
                          static_cast<std::int32_t>(at));
                    at += q(node);
                }
        };
        reaching_ptr_.assign(static_cast<std::size_t>(n_nodes()) + 1, 0);
        each([&](std::size_t node, std::int32_t, std::int32_t) { ++reaching_ptr_[node + 1]; });
        std::partial_sum(reaching_ptr_.begin(), reaching_ptr_.end(), reaching_ptr_.begin());
        reaching_.resize(static_cast<std::size_t>(reaching_ptr_.back()));
        std::vector<Index> to(reaching_ptr_.begin(), reaching_ptr_.end() - 1);
        each([&](std::size_t node, std::int32_t k, std::int32_t at) {
            reaching_[static_cast<std::size_t>(to[node]++)] = {k, at};
        });
    }

    void place_pairs(int n_threads, Interrupt& interrupt) {
        for (const auto& pair : pairs_) targets_.emplace_back(pair.levels.other.size());
        constexpr Index levels_a_task = 4096;
        for (std::size_t which = 0; which < pairs_.size(); ++which) {
            const auto& [a, b, levels] = pairs_[which];
            const Index m = factor(a).m;
            parallel_for((m + levels_a_task - 1) / levels_a_task, n_threads, interrupt, [&](Index task) {
                for (Index i = task * levels_a_task; i < std::min(m, (task + 1) * levels_a_task); ++i)
                    for (Index s = levels.ptr[static_cast<std::size_t>(i)];
                         s < levels.ptr[static_cast<std::size_t>(i) + 1]; ++s)
                        targets_[which][static_cast<std::size_t>(s)] =
                            target(node(a, i), node(b, levels.other[static_cast<std::size_t>(s)]));
            });
        }
    }

    Target target(Index node_a, Index node_b) const {
        const Index column = std::min(node_a, node_b), row = std::max(node_a, node_b);
        const std::int32_t* rows = G_.rows(column);
        const Index length = G_.length(column);
        const Index at = std::lower_bound(rows, rows + length, static_cast<std::int32_t>(offset(row))) - rows;
        return {G_.start(column) + at, static_cast<std::int32_t>(length), node_a < node_b};
    }

    void add_pair(const FactorPair& pair, const Targets& targets, const double* Z, const double* weights,
                  Index begin, Index n, int q) {
        const auto& columns_a = factor(pair.a).columns;
        const auto& columns_b = factor(pair.b).columns;
        const std::int32_t* slot = pair.levels.slot.data() + begin;
        for (Index i = 0; i < n; ++i) {
            const Target& target = targets[static_cast<std::size_t>(slot[i])];
            const double* z = Z + i * q;
            const double w = weights ? weights[i] : 1.0;
            double* out = G_values_.data() + target.value;
            const Index step_a = target.a_first ? target.stride : 1,
                        step_b = target.a_first ? 1 : target.stride;
            for (std::size_t k = 0; k < columns_a.size(); ++k)
                for (std::size_t l = 0; l < columns_b.size(); ++l)
                    out[static_cast<Index>(k) * step_a + static_cast<Index>(l) * step_b] +=
                        w * z[columns_a[k]] * z[columns_b[l]];
        }
    }

    void add_factor(Index f, const double* A, const double* Z, const double* weights, Index begin, Index n,
                    int q) {
        const auto& columns = factor(f).columns;
        const std::int32_t* codes = factor(f).codes.data() + begin;
        for (Index i = 0; i < n; ++i) {
            const Index k = node(f, codes[i]);
            double* block = G_diag_.data() + diag(k);
            double* B = B_.data() + offset(k) * p1_;
            const double w = weights ? weights[i] : 1.0;
            for (const int a : columns) {
                const double wz = w * Z[i * q + a];
                for (const int b : columns) *block++ += wz * Z[i * q + b];
                for (int c = 0; c < p1_; ++c) *B++ += wz * A[i * p1_ + c];
            }
        }
    }

    void add_gram(const double* A, const double* weights, Index n) {
        constexpr Index at_once = 512;
        Eigen::Map<RowMatrix> gram(gram_.data(), p1_, p1_);
        RowMatrix weighted(std::min(n, at_once), p1_);
        for (Index begin = 0; begin < n; begin += at_once) {
            const Index count = std::min(at_once, n - begin);
            const Eigen::Map<const RowMatrix> part(A + begin * p1_, count, p1_);
            auto scaled = weighted.topRows(count);
            scaled = part;
            if (weights) scaled.array().colwise() *= Eigen::Map<const Eigen::ArrayXd>(weights + begin, count);
            gram.noalias() += scaled.transpose() * part;
        }
    }

    int p1_, max_q_ = 1;
    std::vector<CrossedFactor> factors_;
    std::vector<FactorPair> pairs_;
    std::vector<Targets> targets_;
    std::vector<Index> first_, sizes_, offset_, diag_, stages_, reaching_ptr_;
    std::vector<std::int32_t> position_, node_factor_, node_of_;
    std::vector<Reaching> reaching_;
    Index n_sparse_ = 0;
    NodeColumns G_, L_;
    std::vector<double> G_values_, G_diag_, B_, gram_;
};

}  // namespace lmmfast
