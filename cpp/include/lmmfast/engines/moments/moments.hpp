// Moments engine: R_i = sigma2 W_i^-1 with known weights, one grouping factor.
//
// One pass over the compressed clusters gives all totals at Ddot = Lambda Lambda'. The pass sums
// products of G = Z'V^-1 Z (q, q), H = Z'V^-1 A (q, p1) and Y; assemble() turns the sums into Totals
// (docs/algorithm.md, eq. 2.9-2.15). Cost O(m q^2 (p + q)), plus O(m q^2 (q^2 + p^2)) for the products.
#pragma once

#include "lmmfast/base/parallel.hpp"
#include "lmmfast/engines/moments/factor.hpp"
#include "lmmfast/engines/moments/own_columns.hpp"
#include "lmmfast/engines/moments/sums.hpp"
#include "lmmfast/engines/totals.hpp"

namespace lmmfast {

namespace detail {

// Always inline, for the reason given at prefetch_rows (side_by_side.hpp).
EIGEN_ALWAYS_INLINE void prefetch_block(const ClusterBlocks& clusters, Index k) {
    const double* block = clusters.block(k);
    for (int f = 0; f < clusters.layout.n_fields(); ++f) Eigen::internal::prefetch(block + f * lanes);
}

// `make_part(block, s)` is what the factor and the sums read of part s of a block.
template <int Q, int P1, class MakePart, class Sums>
void sum_blocks(const ClusterBlocks& clusters, int n_columns, const double* Lambda, Index begin, Index end,
                Interrupt& interrupt, const MakePart& make_part, Sums& sums, double* out) {
    constexpr Index blocks_between_checks = 256, blocks_ahead = 2;
    BlockFactor<Q, P1> factor({clusters.layout.q, n_columns}, Lambda);
    LogProduct det;
    const int size = factor.layout().size();
    std::vector<Pack> items(static_cast<std::size_t>(batch_packs) * size);
    int n = 0;
    for (Index k = begin; k < end; ++k) {
        if (k % blocks_between_checks == 0) interrupt.check();
        if (k + blocks_ahead < end) prefetch_block(clusters, k + blocks_ahead);
        for (int s = 0; s < packs_per_block; ++s) {
            const auto part = make_part(clusters.block(k), s);
            factor.factorise(part, det);
            factor.whiten(part, &items[static_cast<std::size_t>(n) * size]);
            if (++n < batch_packs) continue;
            sums.add(items.data(), n);
            n = 0;
        }
    }
    sums.add(items.data(), n);
    sums.write(out);
    out[0] = det.total();
}

struct AllOfPart {
    const Layout& layout;
    BlockPart operator()(const double* block, int s) const { return {layout, block, s}; }
};
struct OwnOfPart {
    const OwnColumns& columns;
    OwnPart operator()(const double* block, int s) const { return {columns, block, s}; }
};

// All columns of A.
template <int Q, int P1, class Sums>
void sum_blocks(const ClusterBlocks& clusters, const double* Lambda, Index begin, Index end,
                Interrupt& interrupt, Sums& sums, double* out) {
    sum_blocks<Q, P1>(clusters, clusters.layout.p1, Lambda, begin, end, interrupt, AllOfPart{clusters.layout},
                      sums, out);
}

// The columns of A that are not columns of Z, into OwnLayout. There are q fewer of them than of A.
template <int Q, int P1>
void sum_own_columns(const ClusterBlocks& clusters, const OwnColumns& columns, const double* Lambda,
                     Index begin, Index end, Interrupt& interrupt, double* out) {
    if constexpr (Q > 0 && P1 > 0 && P1 <= Q) return;
    constexpr int P = P1 > Q && Q > 0 ? P1 - Q : 0, fixed_q = P > 0 ? Q : 0;
    OwnSums<fixed_q, P> sums(clusters.layout.q, columns.n_own());
    sum_blocks<fixed_q, P>(clusters, columns.n_own(), Lambda, begin, end, interrupt, OwnOfPart{columns}, sums,
                           out);
}

// Below this number of columns sums run in packs; above it, packs are stacked into matrix products.
inline constexpr int max_p1_in_packs = 12;

template <int Q, int P1>
void sum_blocks_in_packs(const ClusterBlocks& clusters, const double* Lambda, Index begin, Index end,
                         bool with_kr, Interrupt& interrupt, double* out) {
    PackSums<Q, P1> sums(clusters.layout.q, clusters.layout.p1, with_kr);
    sum_blocks<Q, P1>(clusters, Lambda, begin, end, interrupt, sums, out);
}

template <int Q>
void sum_blocks_as_products(const ClusterBlocks& clusters, const double* Lambda, Index begin, Index end,
                            bool with_kr, Interrupt& interrupt, double* out) {
    ProductSums<Q> sums(clusters.layout.q, clusters.layout.p1, with_kr);
    sum_blocks<Q, 0>(clusters, Lambda, begin, end, interrupt, sums, out);
}

// The sums without A of clusters that stand for several: adds those of one pack to `total` (logdet, G, G G as
// in MomentLayout). `factor` is one without A, `item` room for what it whitens.
template <class Factor, class Part>
void add_design(Factor& factor, const Part& part, Pack count, Pack* item, std::vector<Pack>& total) {
    LogProduct unused;
    factor.factorise(part, unused);
    factor.whiten(part, item);
    const int q = factor.q(), K = n_pairs(q);
    const MomentLayout sums{q, 0};
    for (int a = 0; a < q; ++a) total[0] -= count * factor.E_inv(a).log();
    for (int i = 0; i < K; ++i) {
        const Pack scaled = count * item[factor.layout().G(i)];
        total[sums.g() + i] += scaled;
        for (int j = i; j < K; ++j) {
            Pack& sum = total[sums.gg(i, j)];
            sum = multiply_add(scaled, item[factor.layout().G(j)], sum);
        }
    }
}

// Those of blocks, to the front of `out`.
inline void sum_designs(const ClusterBlocks& clusters, const double* Lambda, Index begin, Index end,
                        double* out) {
    const int q = clusters.layout.q;
    BlockFactor<0, 0> factor({q, 0}, Lambda);
    std::vector<Pack> item(static_cast<std::size_t>(factor.layout().size()));
    std::vector<Pack> total(static_cast<std::size_t>(MomentLayout{q, 0}.gram()), Pack::zero());
    for (Index k = begin; k < end; ++k)
        for (int s = 0; s < packs_per_block; ++s) {
            const double* counts = clusters.counts + k * lanes + s * Pack::size;
            if (std::all_of(counts, counts + Pack::size, [](double c) { return c == 0.0; })) continue;
            add_design(factor, BlockPart(clusters.layout, clusters.block(k), s), Pack::load(counts),
                       item.data(), total);
        }
    for (std::size_t e = 0; e < total.size(); ++e) out[e] = total[e].sum();
}

inline void sum_blocks(const ClusterBlocks& clusters, const double* Lambda, Index begin, Index end,
                       bool with_kr, Interrupt& interrupt, double* out) {
    const auto [q, p1] = clusters.layout;
    with_fixed_size<max_fixed_q>(q, [&, p1 = p1](auto Q) {
        if (p1 > max_p1_in_packs)
            return sum_blocks_as_products<Q.value>(clusters, Lambda, begin, end, with_kr, interrupt, out);
        with_fixed_size<max_fixed_p1>(p1, [&](auto P1) {
            sum_blocks_in_packs<Q.value, P1.value>(clusters, Lambda, begin, end, with_kr, interrupt, out);
        });
    });
    if (clusters.counts) sum_designs(clusters, Lambda, begin, end, out);
}

inline void sum_own_columns(const ClusterBlocks& clusters, const OwnColumns& columns, const double* Lambda,
                            Index begin, Index end, Interrupt& interrupt, double* out) {
    with_fixed_size<max_fixed_q>(clusters.layout.q, [&](auto Q) {
        with_fixed_size<max_fixed_p1>(clusters.layout.p1, [&](auto P1) {
            sum_own_columns<Q.value, P1.value>(clusters, columns, Lambda, begin, end, interrupt, out);
        });
    });
}

// Whether a pass leaves out the columns of X that are columns of Z: where the compiler knows the sizes.
inline bool own_columns_suffice(const ClusterBlocks& clusters, bool with_kr) {
    const auto [q, p1] = clusters.layout;
    return clusters.z_in_x && !with_kr && !clusters.counts && q <= max_fixed_q && p1 <= max_fixed_p1;
}

// Whether a pass is over before further threads, some 30 microseconds each, would have paid: counted in
// operations on a Lane, about a nanosecond each.
inline bool is_short_pass(const ClusterBlocks& clusters, Index sums_size) {
    constexpr Index short_pass = 1000000;
    const auto [q, p1] = clusters.layout;
    return clusters.n_blocks * (sums_size + Index{2} * q * q * (q + p1)) < short_pass;
}

// sum(begin, end, out) of all blocks, `size` numbers: over several threads, always in the same order.
template <class Sum>
std::vector<double> sum_in_parallel(const ClusterBlocks& clusters, Index size, int n_threads,
                                    Interrupt& interrupt, const Sum& sum) {
    const Index n_sums = n_partial_sums(clusters.n_blocks, size);
    std::vector<double> partial(static_cast<std::size_t>(n_sums * size));
    const int threads = is_short_pass(clusters, size) ? 1 : n_threads;
    parallel_for(n_sums, threads, interrupt, [&](Index k) {
        sum(k * clusters.n_blocks / n_sums, (k + 1) * clusters.n_blocks / n_sums, partial.data() + k * size);
    });
    for (Index k = 1; k < n_sums; ++k)
        for (Index e = 0; e < size; ++e) partial[e] += partial[k * size + e];
    partial.resize(static_cast<std::size_t>(size));
    return partial;
}

}  // namespace detail

// Totals at Ddot = Lambda Lambda'. `perp` (p1, p1) is the sum of A_i'(I - Q_i Q_i')A_i.
// A short pass stays on the calling thread.
inline Totals evaluate_moments(const ClusterBlocks& clusters, const double* Lambda, const double* perp,
                               bool with_kr, int n_threads, Interrupt& interrupt) {
    using namespace detail;
    const auto [q, p1] = clusters.layout;
    const MomentLayout layout{q, p1, with_kr};
    std::vector<double> sums;
    if (own_columns_suffice(clusters, with_kr)) {
        const OwnColumns columns(clusters.layout, clusters.z_in_x);
        const Index size = OwnLayout{q, columns.n_own()}.size();
        sums =
            sum_in_parallel(clusters, size, n_threads, interrupt, [&](Index begin, Index end, double* out) {
                sum_own_columns(clusters, columns, Lambda, begin, end, interrupt, out);
            });
        sums = all_columns(columns, sums.data());
    } else {
        sums = sum_in_parallel(clusters, layout.size(), n_threads, interrupt,
                               [&](Index begin, Index end, double* out) {
                                   sum_blocks(clusters, Lambda, begin, end, with_kr, interrupt, out);
                               });
    }
    return assemble(layout, sums.data(), perp);
}

}  // namespace lmmfast
