// Moments engine: R_i = sigma2 W_i^-1 with known weights, one grouping factor.
//
// One pass over the compressed clusters gives all totals at Ddot = Lambda Lambda'. The pass sums
// products of G = Z'V^-1 Z (q, q), H = Z'V^-1 A (q, p1) and Y; assemble() turns the sums into Totals
// (docs/algorithm.md, eq. 2.9-2.15). Cost O(m q^2 (p + q)), plus O(m q^2 (q^2 + p^2)) for the products.
#pragma once

#include "lmmfast/engines/block_factor.hpp"
#include "lmmfast/engines/moment_sums.hpp"
#include "lmmfast/parallel.hpp"
#include "lmmfast/totals.hpp"

namespace lmmfast {

namespace detail {

template <int Q, int P1, class Sums>
void sum_blocks(const ClusterBlocks& clusters, const double* Lambda, Index begin, Index end,
                Interrupt& interrupt, Sums& sums, double* out) {
    constexpr Index blocks_between_checks = 256;
    BlockFactor<Q, P1> factor(clusters.layout, Lambda);
    LogProduct det;
    const int size = factor.layout().size();
    std::vector<Pack> items(static_cast<std::size_t>(batch_packs) * size);
    int n = 0;
    for (Index k = begin; k < end; ++k) {
        if (k % blocks_between_checks == 0) interrupt.check();
        for (int s = 0; s < packs_per_block; ++s) {
            const BlockPart part(clusters.layout, clusters.block(k), s);
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

// Below this number of columns sums run in packs; above it, packs are stacked into matrix products.
inline constexpr int max_p1_in_packs = 12;
// Sizes that the compiler gets to know: loops unroll, and the small matrices stay in registers.
#ifndef LMMFAST_MAX_FIXED_Q
#define LMMFAST_MAX_FIXED_Q 3
#endif
#ifndef LMMFAST_MAX_FIXED_P1
#define LMMFAST_MAX_FIXED_P1 6
#endif
inline constexpr int max_fixed_q = LMMFAST_MAX_FIXED_Q, max_fixed_p1 = LMMFAST_MAX_FIXED_P1;

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

// A run-time size as a compile-time one: call(std::integral_constant<int, N>), 0 beyond `Max`.
template <int Max, int N = 1, class Call>
void with_fixed_size(int size, const Call& call) {
    if constexpr (N > Max) {
        call(std::integral_constant<int, 0>{});
    } else if (size == N) {
        call(std::integral_constant<int, N>{});
    } else {
        with_fixed_size<Max, N + 1>(size, call);
    }
}

// The sums without A where a cluster stands for several: logdet, G, G G go to the front of `out`.
inline void sum_designs(const ClusterBlocks& clusters, const double* Lambda, Index begin, Index end,
                        double* out) {
    const int q = clusters.layout.q, K = n_pairs(q);
    const MomentLayout sums{q, clusters.layout.p1};
    BlockFactor<0, 0> factor({q, 0}, Lambda);
    LogProduct unused;
    const auto G = [&](const Pack* item, int k) { return item[factor.layout().G(k)]; };
    std::vector<Pack> item(static_cast<std::size_t>(factor.layout().size()));
    std::vector<Pack> total(static_cast<std::size_t>(sums.gram()), Pack::zero());
    for (Index k = begin; k < end; ++k)
        for (int s = 0; s < packs_per_block; ++s) {
            const double* counts = clusters.counts + k * lanes + s * Pack::size;
            if (std::all_of(counts, counts + Pack::size, [](double c) { return c == 0.0; })) continue;
            const BlockPart part(clusters.layout, clusters.block(k), s);
            factor.factorise(part, unused);
            factor.whiten(part, item.data());
            const Pack count = Pack::load(counts);
            for (int a = 0; a < q; ++a) total[0] -= count * factor.E_inv(a).log();
            for (int i = 0; i < K; ++i) {
                const Pack scaled = count * G(item.data(), i);
                total[sums.g() + i] += scaled;
                for (int j = i; j < K; ++j) {
                    Pack& sum = total[sums.gg(i, j)];
                    sum = multiply_add(scaled, G(item.data(), j), sum);
                }
            }
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

// Whether a pass is over before further threads, some 30 microseconds each, would have paid: counted in
// operations on a Lane, about a nanosecond each.
inline bool is_short_pass(const ClusterBlocks& clusters, const MomentLayout& sums) {
    constexpr Index short_pass = 1000000;
    const auto [q, p1] = clusters.layout;
    return clusters.n_blocks * (sums.size() + Index{2} * q * q * (q + p1)) < short_pass;
}

}  // namespace detail

// Totals at Ddot = Lambda Lambda'. `perp` (p1, p1) is the sum of A_i'(I - Q_i Q_i')A_i.
// A short pass stays on the calling thread.
inline Totals evaluate_moments(const ClusterBlocks& clusters, const double* Lambda, const double* perp,
                               bool with_kr, int n_threads, Interrupt& interrupt) {
    const auto [q, p1] = clusters.layout;
    const MomentLayout layout{q, p1, with_kr};
    const Index n_sums = n_partial_sums(clusters.n_blocks, layout.size());
    std::vector<double> partial(static_cast<std::size_t>(n_sums * layout.size()));
    const int threads = detail::is_short_pass(clusters, layout) ? 1 : n_threads;
    parallel_for(n_sums, threads, interrupt, [&](Index k) {
        const Index begin = k * clusters.n_blocks / n_sums;
        const Index end = (k + 1) * clusters.n_blocks / n_sums;
        detail::sum_blocks(clusters, Lambda, begin, end, with_kr, interrupt,
                           partial.data() + k * layout.size());
    });
    for (Index k = 1; k < n_sums; ++k)
        for (Index e = 0; e < layout.size(); ++e) partial[e] += partial[k * layout.size() + e];
    return assemble(layout, partial.data(), perp);
}

}  // namespace lmmfast
