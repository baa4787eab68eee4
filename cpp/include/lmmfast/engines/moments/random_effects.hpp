// Predictions of the random effects (BLUPs) and their conditional covariances, packs of clusters at a time.
#pragma once

#include <algorithm>

#include "lmmfast/engines/moments/moments.hpp"

namespace lmmfast {

namespace detail {

// b = root Lambda'Z'Vdot^-1 r = root F' B^-1 (Q'A c) with c = (-beta, 1) (algorithm.md, eq. 5.4)
template <int Q, class Source>
void predict_effects(const BlockFactor<Q, 0>& f, const Source& source, const double* root, const double* c,
                     Pack* b) {
    const int q = f.q();
    Pack x[max_q], Fx[max_q];
    for (int a = 0; a < q; ++a) {
        x[a] = Pack::zero();
        for (int j = 0; j < f.p1(); ++j) x[a] += source.QA(a, j) * c[j];
    }
    f.solve_B(x);
    for (int k = 0; k < q; ++k) {
        Fx[k] = f.F(0, k) * x[0];
        for (int a = 1; a < q; ++a) Fx[k] += f.F(a, k) * x[a];
    }
    for (int a = 0; a < q; ++a) {
        b[a] = Fx[0] * root[a * q];
        for (int k = 1; k < q; ++k) b[a] += Fx[k] * root[a * q + k];
    }
}

// Var(b | y) = root (I + F'F)^-1 root' = W'W with W = C^-1 root', C C' = I + F'F (eq. 5.5)
template <int Q>
void predict_covariance(const BlockFactor<Q, 0>& f, const double* root, Pack* var) {
    const int q = f.q();
    Pack C[max_q * max_q], W[max_q * max_q];
    for (int a = 0; a < q; ++a)
        for (int b = 0; b <= a; ++b) {
            Pack sum = Pack::all(a == b ? 1.0 : 0.0);
            for (int k = 0; k < q; ++k) sum += f.F(k, a) * f.F(k, b);
            for (int k = 0; k < b; ++k) sum -= C[a * q + k] * C[b * q + k];
            C[a * q + b] = a == b ? sum.sqrt() : sum / C[b * q + b];
        }
    for (int a = 0; a < q; ++a)
        for (int b = 0; b < q; ++b) {
            Pack sum = Pack::all(root[b * q + a]);
            for (int k = 0; k < a; ++k) sum -= C[a * q + k] * W[k * q + b];
            W[a * q + b] = sum / C[a * q + a];
        }
    for (int a = 0; a < q; ++a)
        for (int b = 0; b < q; ++b) {
            Pack sum = W[a] * W[b];
            for (int k = 1; k < q; ++k) sum += W[k * q + a] * W[k * q + b];
            var[a * q + b] = sum;
        }
}

// values (n, Pack::size) of up to Pack::size clusters -> out (cluster, n)
inline void write_by_cluster(const Pack* values, int n, Index n_clusters, double* out) {
    alignas(64) double of_all[Pack::size];
    for (int e = 0; e < n; ++e) {
        values[e].store(of_all);
        for (Index i = 0; i < std::min<Index>(Pack::size, n_clusters); ++i) out[i * n + e] = of_all[i];
    }
}

}  // namespace detail

// Calls each(factor, part, i) for every pack of clusters, i the first of them, factorised at Lambda.
template <class Each>
void for_each_pack(const ClusterBlocks& clusters, Index n_clusters, const double* Lambda, int n_threads,
                   Interrupt& interrupt, const Each& each) {
    constexpr Index blocks_each = 512;
    const Index n_tasks = (clusters.n_blocks + blocks_each - 1) / blocks_each;
    parallel_for(n_tasks, n_threads, interrupt, [&](Index task) {
        const Index end = std::min(clusters.n_blocks, (task + 1) * blocks_each);
        with_fixed_size<max_fixed_q>(clusters.layout.q, [&](auto Q) {
            BlockFactor<Q.value, 0> factor(clusters.layout, Lambda);
            LogProduct det;
            for (Index k = task * blocks_each; k < end; ++k)
                for (int s = 0; s < packs_per_block && k * lanes + s * Pack::size < n_clusters; ++s) {
                    const BlockPart part(clusters.layout, clusters.block(k), s);
                    factor.factorise(part, det);
                    each(factor, part, k * lanes + s * Pack::size);
                }
        });
    });
}

// Predictions b (n_clusters, q) = root u, where u predicts Lambda^-1 b: root = Lambda for b itself, any
// other root (q, q) for other units.
inline void random_effects(const ClusterBlocks& clusters, Index n_clusters, const double* Lambda,
                           const double* root, const double* c, double* b, int n_threads,
                           Interrupt& interrupt) {
    const int q = clusters.layout.q;
    for_each_pack(clusters, n_clusters, Lambda, n_threads, interrupt,
                  [&](const auto& factor, const auto& part, Index i) {
                      Pack effects[max_q];
                      detail::predict_effects(factor, part, root, c, effects);
                      detail::write_by_cluster(effects, q, n_clusters - i, b + i * q);
                  });
}

// Var(root u | y) / sigma2, (n_clusters, q, q).
inline void random_effects_covariance(const ClusterBlocks& clusters, Index n_clusters, const double* Lambda,
                                      const double* root, double* covariance, int n_threads,
                                      Interrupt& interrupt) {
    const int q2 = clusters.layout.q * clusters.layout.q;
    for_each_pack(clusters, n_clusters, Lambda, n_threads, interrupt,
                  [&](const auto& factor, const auto&, Index i) {
                      Pack var[max_q * max_q];
                      detail::predict_covariance(factor, root, var);
                      detail::write_by_cluster(var, q2, n_clusters - i, covariance + i * q2);
                  });
}

}  // namespace lmmfast
