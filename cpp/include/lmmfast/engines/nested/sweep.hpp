// From the innermost units outwards: sum the totals of the units inside, absorb the own effects, hand out.
#pragma once

#include <algorithm>
#include <vector>

#include "lmmfast/engines/nested/absorb.hpp"
#include "lmmfast/engines/nested/layout.hpp"

namespace lmmfast {

// What random effects need of each unit of the outer levels, (m, size) by level: T1 and W_ZA (q, P'), K and
// L^-1 (q, q) where L L' = I + Lambda'G Lambda.
struct NestedRecord {
    std::vector<std::vector<double>> of_level;

    explicit NestedRecord(const NestedTree& tree) {
        for (int l = 0; l + 1 < tree.depth(); ++l)
            of_level.emplace_back(static_cast<std::size_t>(tree.levels[l].m * size(tree, l)));
    }
    static int n_columns(const NestedTree& tree, int level) { return tree.n_outer_columns(level) + tree.p1; }
    static Index size(const NestedTree& tree, int level) {
        const Index q = tree.levels[level].q();
        return 2 * q * n_columns(tree, level) + 2 * q * q;
    }
};

// Inner gives the totals of the innermost units inside a unit: of_unit(i, to), finish(total).
template <class Inner>
class NestedSweep {
  public:
    NestedSweep(const NestedTree& tree, const double* Lambda, bool with_kr, Inner& inner,
                NestedRecord* record = nullptr)
        : tree_(tree), total_layout_(tree.total(with_kr)), inner_(inner), record_(record) {
        const int depth = tree.depth();
        for (int l = 0; l + 1 < depth; ++l) {
            const UnitLayout in = tree.handed_out(l + 1, with_kr), out = tree.handed_out(l, with_kr);
            const NestedLevel& level = tree.levels[l];
            const std::vector<double> own = own_block(level, Lambda, tree.q());
            work_.push_back({Absorb(in, out, total_layout_, level.q(), own.data()),
                             std::vector<Pack>(static_cast<std::size_t>(in.size() * packs_per_block)),
                             std::vector<Pack>(static_cast<std::size_t>(level.q() * out.P * packs_per_block)),
                             std::vector<Pack>(static_cast<std::size_t>(out.size()), Pack::zero())});
        }
        total_.assign(static_cast<std::size_t>(total_layout_.kr()), Pack::zero());
    }

    // Outermost units first … first + n - 1, n <= 8.
    void add(Index first, Index n) { absorb(0, first, n); }

    // Adds what has been summed to `total` (TotalLayout).
    void finish(double* total) {
        inner_.finish(total);
        total[total_layout_.logdet()] += det_.total();
        for (Index e = 1; e < total_layout_.kr(); ++e) total[e] += total_[e].sum();
        for (Index e = total_layout_.kr(); e < total_layout_.size(); ++e)
            total[e] += work_[0].out[e - total_layout_.kr()].sum();
    }

  private:
    struct Work {
        Absorb absorb;
        std::vector<Pack> in, C0;  // (size, lanes)
        std::vector<Pack> out;     // sums over the units of this level inside one unit
    };

    void absorb(int l, Index first, Index n) {
        Work& work = work_[l];
        auto* in = reinterpret_cast<double*>(work.in.data());
        auto* C0 = reinterpret_cast<double*>(work.C0.data());
        std::fill(work.in.begin(), work.in.end(), Pack::zero());
        std::fill(work.C0.begin(), work.C0.end(), Pack::zero());
        const Index n_C0 = static_cast<Index>(work.C0.size()) * Pack::size / lanes;
        for (Index i = 0; i < n; ++i) {
            take_in(l, first + i, in + i);
            const double* from = tree_.levels[l].centre + (first + i) * n_C0;
            for (Index e = 0; e < n_C0; ++e) C0[e * lanes + i] = from[e];
        }
        for (int s = 0; s * Pack::size < n; ++s) {
            work.absorb.factorise(in, C0, s, det_);
            if (record_) note(l, first + s * Pack::size, std::min<Index>(Pack::size, n - s * Pack::size));
            work.absorb.add(work.out.data(), total_.data());
        }
    }
    // The sum of what the units inside one unit of level l hand out, entry e to in[e * lanes].
    void take_in(int l, Index unit, double* in) {
        if (l + 2 == tree_.depth()) return inner_.of_unit(unit, in);
        const Index end = tree_.levels[l].first[unit + 1];
        for (Index k = tree_.levels[l].first[unit]; k < end; k += lanes)
            absorb(l + 1, k, std::min<Index>(lanes, end - k));
        std::vector<Pack>& sums = work_[l + 1].out;
        for (std::size_t e = 0; e < sums.size(); ++e) {
            in[e * lanes] = sums[e].sum();
            sums[e] = Pack::zero();
        }
    }
    void note(int l, Index first, Index n) {
        const Index size = NestedRecord::size(tree_, l);
        double* to = record_->of_level[l].data() + first * size;
        const AbsorbedMatrices& m = work_[l].absorb.matrices();
        alignas(64) double values[Pack::size];
        for (const auto* matrix : {&m.T1, &m.W_ZA, &m.K, &m.B_inv_root})
            for (const Pack& entry : *matrix) {
                entry.store(values);
                for (Index i = 0; i < n; ++i) to[i * size] = values[i];
                ++to;
            }
    }

    const NestedTree& tree_;
    TotalLayout total_layout_;
    Inner& inner_;
    NestedRecord* record_;
    std::vector<Work> work_;
    std::vector<Pack> total_;
    LogProduct det_;
};

}  // namespace lmmfast
