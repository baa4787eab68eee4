// Predictions of the random effects (BLUPs) and their conditional covariances, eight clusters at a time.
#pragma once

#include <array>

#include "lmmfast/engines/moments.hpp"

namespace lmmfast {

namespace detail {

// b = root Lambda'Z'Vdot^-1 r = root F' B^-1 (Q'A c) with c = (-beta, 1) (algorithm.md, eq. 5.4)
template <int Q>
void block_effects(const BlockFactor<Q, 0>& f, const double* block, const Layout& layout, const double* root,
                   const double* c, std::array<Lane, max_q>& b) {
    const int q = f.q();
    std::array<Lane, max_q> x, Fx;
    for (int a = 0; a < q; ++a) {
        x[a].setZero();
        for (int j = 0; j < layout.p1; ++j) x[a] += ConstLaneMap(block + layout.qa(a, j) * lanes) * c[j];
    }
    f.solve_B(x.data());
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
void block_covariance(const BlockFactor<Q, 0>& f, const double* root, std::array<Lane, max_q * max_q>& var) {
    const int q = f.q();
    std::array<Lane, max_q * max_q> C, W;
    for (int a = 0; a < q; ++a)
        for (int b = 0; b <= a; ++b) {
            Lane sum = Lane::Constant(a == b ? 1.0 : 0.0);
            for (int k = 0; k < q; ++k) sum += f.F(k, a) * f.F(k, b);
            for (int k = 0; k < b; ++k) sum -= C[a * q + k] * C[b * q + k];
            C[a * q + b] = a == b ? Lane(sum.sqrt()) : Lane(sum / C[b * q + b]);
        }
    for (int a = 0; a < q; ++a)
        for (int b = 0; b < q; ++b) {
            Lane sum = Lane::Constant(root[b * q + a]);
            for (int k = 0; k < a; ++k) sum -= C[a * q + k] * W[k * q + b];
            W[a * q + b] = sum / C[a * q + a];
        }
    for (int a = 0; a < q; ++a)
        for (int b = 0; b < q; ++b) {
            Lane sum = W[a] * W[b];
            for (int k = 1; k < q; ++k) sum += W[k * q + a] * W[k * q + b];
            var[a * q + b] = sum;
        }
}

}  // namespace detail

// Calls each(factor, k) for every block at Lambda, factorised.
template <class Each>
void for_each_block(const ClusterBlocks& clusters, const double* Lambda, int n_threads, Interrupt& interrupt,
                    const Each& each) {
    constexpr Index blocks_each = 512;
    const Index n_tasks = (clusters.n_blocks + blocks_each - 1) / blocks_each;
    parallel_for(n_tasks, n_threads, interrupt, [&](Index task) {
        const Index end = std::min(clusters.n_blocks, (task + 1) * blocks_each);
        detail::with_fixed_size<detail::max_fixed_q>(clusters.layout.q, [&](auto Q) {
            BlockFactor<Q.value, 0> factor(clusters.layout, Lambda);
            LogProduct det;
            for (Index k = task * blocks_each; k < end; ++k) {
                factor.factorise(clusters.block(k), det);
                each(factor, k);
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
    for_each_block(clusters, Lambda, n_threads, interrupt, [&](const auto& factor, Index k) {
        const int used = static_cast<int>(std::min<Index>(lanes, n_clusters - k * lanes));
        std::array<Lane, max_q> effects;
        detail::block_effects(factor, clusters.block(k), clusters.layout, root, c, effects);
        for (int lane = 0; lane < used; ++lane)
            for (int a = 0; a < q; ++a) b[(k * lanes + lane) * q + a] = effects[a][lane];
    });
}

// Var(root u | y) / sigma2, (n_clusters, q, q).
inline void random_effects_covariance(const ClusterBlocks& clusters, Index n_clusters, const double* Lambda,
                                      const double* root, double* covariance, int n_threads,
                                      Interrupt& interrupt) {
    const int q = clusters.layout.q;
    for_each_block(clusters, Lambda, n_threads, interrupt, [&](const auto& factor, Index k) {
        const int used = static_cast<int>(std::min<Index>(lanes, n_clusters - k * lanes));
        std::array<Lane, max_q * max_q> var;
        detail::block_covariance(factor, root, var);
        for (int lane = 0; lane < used; ++lane)
            for (int e = 0; e < q * q; ++e) covariance[(k * lanes + lane) * q * q + e] = var[e][lane];
    });
}

}  // namespace lmmfast
