// Innermost units of nested factors where residuals are independent: sums over packs of them.
#pragma once

#include <cmath>
#include <vector>

#include "lmmfast/engines/moments/factor.hpp"
#include "lmmfast/engines/nested/layout.hpp"

namespace lmmfast {

// Q and P fix the sizes at compile time; 0 takes them from the tree.
template <int Q, int P>
class InnerSums {
  public:
    InnerSums(const NestedTree& tree, const ClusterBlocks& clusters, const double* Lambda, bool with_kr)
        : clusters_(clusters),
          unit_(tree.handed_out(tree.depth() - 1, with_kr)),
          total_(tree.total(with_kr)),
          entries_(vech_entries(clusters.layout.q)),
          factor_(clusters.layout, Lambda),
          first_block_(tree.first_block),
          perp_(tree.perp),
          item_(static_cast<std::size_t>(factor_.layout().size())),
          sums_(static_cast<std::size_t>(kr_at() + unit_.n_kr * unit_.n_kr * n_pairs(unit_.K)), Pack::zero()),
          perp_total_(static_cast<std::size_t>(n_triangle()), 0.0) {}

    // Totals of the innermost units inside one unit of the level around them: entry e to unit[e * lanes].
    void of_unit(Index i, double* unit) {
        for (Index k = first_block_[i]; k < first_block_[i + 1]; ++k)
            for (int s = 0; s < packs_per_block; ++s) add(k, s);
        const int head = unit_.head();
        for (int k = 0; k <= unit_.K; ++k) hand_out(k * n_triangle(), head, unit + k * head * lanes);
        hand_out(kr_at(), static_cast<int>(unit_.size() - unit_.kr(0, 0)), unit + unit_.kr(0, 0) * lanes);
        const double* perp = perp_ + i * n_triangle();
        for (int e = 0; e < head; ++e) unit[e * lanes] += perp[e];
        for (int e = head; e < n_triangle(); ++e) perp_total_[e] += perp[e];
    }

    // What adds up over all units.
    void finish(double* total) {
        total[total_.logdet()] += det_.total() + counted_log_;
        const int head = unit_.head(), rest = n_triangle() - head;
        for (int k = 0; k < unit_.K; ++k) {
            total[total_.trace() + k] += sums_[trace_at() + k].sum();
            for (int l = k; l < unit_.K; ++l)
                total[total_.info(k, l)] += sums_[info_at() + pair_index(k, l, unit_.K)].sum();
        }
        for (int k = 0; k <= unit_.K; ++k)
            for (int e = 0; e < rest; ++e)
                total[total_.gram() + k * rest + e] += sums_[k * n_triangle() + head + e].sum();
        for (int e = 0; e < rest; ++e) total[total_.gram() + e] += perp_total_[head + e];
    }

  private:
    int q() const { return factor_.q(); }
    int p() const { return factor_.p1(); }
    // gram and quad, then trace and info, then kr
    int n_triangle() const { return n_pairs(unit_.P); }
    int trace_at() const { return (1 + unit_.K) * n_triangle(); }
    int info_at() const { return trace_at() + unit_.K; }
    int kr_at() const { return info_at() + n_pairs(unit_.K); }

    void hand_out(int at, int n, double* to) {
        for (int e = 0; e < n; ++e) {
            to[e * lanes] = sums_[at + e].sum();
            sums_[at + e] = Pack::zero();
        }
    }

    void add(Index block, int s) {
        const BlockPart part(clusters_.layout, clusters_.block(block), s);
        Pack* item = item_.data();
        const auto& at = factor_.layout();
        if (clusters_.counts) {
            const double* counts = clusters_.counts + block * lanes + s * Pack::size;
            factor_.factorise(part, ignored_);
            factor_.whiten(part, item);
            add_logs(counts);
            add_G(Pack::load(counts));
        } else {
            factor_.factorise(part, det_);
            factor_.whiten(part, item);
            add_G(Pack::all(1.0));
        }
        for (int a = 0; a < q(); ++a) add_scaled(item + at.Y(a), item[at.E_inv() + a]);
        at.project(item);
        for (int k = 0; k < unit_.K; ++k) {
            const auto [a, b, f] = entries_[k];
            if (a == b)
                add_square(&sums_[(1 + k) * n_triangle()], item + at.Y(a));
            else
                add_both_ways(&sums_[(1 + k) * n_triangle()], item + at.Y(a), item + at.Y(b));
        }
        if (unit_.n_kr > 0) add_kr();
    }
    Pack G(int a, int b) const {
        return item_[factor_.layout().G(a <= b ? pair_index(a, b, q()) : pair_index(b, a, q()))];
    }
    Pack H(int a, int j) const { return item_[factor_.layout().Y(a) + j]; }

    void add_logs(const double* counts) {
        alignas(64) double inverse[Pack::size];
        for (int a = 0; a < q(); ++a) {
            factor_.E_inv(a).store(inverse);
            for (int lane = 0; lane < Pack::size; ++lane)
                if (counts[lane] != 0.0) counted_log_ -= counts[lane] * std::log(inverse[lane]);
        }
    }
    void add_G(Pack count) {
        for (int k = 0; k < unit_.K; ++k) {
            const auto [a, b, f] = entries_[k];
            sums_[trace_at() + k] += count * G(a, b) * (2.0 * f);
            for (int l = k; l < unit_.K; ++l) {
                const auto [c, d, g] = entries_[l];
                const Pack both = G(a, c) * G(b, d) + G(a, d) * G(b, c);
                sums_[info_at() + pair_index(k, l, unit_.K)] += count * both * (f * g);
            }
        }
    }
    void add_scaled(const Pack* y, Pack e) {
        Pack* sum = sums_.data();
        for (int i = 0; i < p(); ++i) {
            const Pack left = y[i] * e;
            for (int j = i; j < p(); ++j, ++sum) *sum = multiply_add(left, y[j], *sum);
        }
    }
    void add_square(Pack* sum, const Pack* h) const {
        for (int i = 0; i < p(); ++i)
            for (int j = i; j < p(); ++j, ++sum) *sum = multiply_add(h[i], h[j], *sum);
    }
    void add_both_ways(Pack* sum, const Pack* h, const Pack* g) const {
        for (int i = 0; i < p(); ++i)
            for (int j = i; j < p(); ++j, ++sum)
                *sum = multiply_add(h[i], g[j], multiply_add(g[i], h[j], *sum));
    }
    // H' E_k G E_l H
    void add_kr() {
        const int n = unit_.n_kr;
        Pack* sum = &sums_[kr_at()];
        for (int k = 0; k < unit_.K; ++k)
            for (int l = k; l < unit_.K; ++l) {
                const auto [a, b, f] = entries_[k];
                const auto [c, d, g] = entries_[l];
                const Pack scale = Pack::all(f * g), ac = scale * G(a, c), ad = scale * G(a, d),
                           bc = scale * G(b, c), bd = scale * G(b, d);
                for (int i = 0; i < n; ++i) {
                    const Pack to_c = H(a, i) * bd + H(b, i) * ad, to_d = H(a, i) * bc + H(b, i) * ac;
                    for (int j = 0; j < n; ++j, ++sum)
                        *sum = multiply_add(to_c, H(c, j), multiply_add(to_d, H(d, j), *sum));
                }
            }
    }

    ClusterBlocks clusters_;
    UnitLayout unit_;
    TotalLayout total_;
    std::vector<VechEntry> entries_;
    BlockFactor<Q, P> factor_;
    const std::int64_t* first_block_;
    const double* perp_;
    std::vector<Pack> item_, sums_;
    std::vector<double> perp_total_;
    LogProduct det_, ignored_;
    double counted_log_ = 0.0;
};

}  // namespace lmmfast
