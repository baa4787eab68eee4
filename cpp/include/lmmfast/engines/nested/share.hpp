// Innermost units of one design put together within the unit around them: exact, as in share.hpp.
//
// Units of the same R enter the totals by the cross-products of the rows vec(Q'A) alone. The triangular
// factor of these rows has the same, and no more than q P rows.
#pragma once

#include <cstring>
#include <optional>
#include <vector>

#include "lmmfast/base/aligned.hpp"
#include "lmmfast/base/parallel.hpp"
#include "lmmfast/compress/triangle.hpp"
#include "lmmfast/engines/nested/layout.hpp"

namespace lmmfast {

struct SharedUnits {
    AlignedDoubles data, counts;            // as in ClusterBlocks
    std::vector<std::int64_t> first_block;  // (m + 1,) of the lowest outer level
};

namespace detail {

// The units inside one unit of the lowest outer level, design by design.
class UnitDesigns {
    static constexpr std::size_t max_designs = 64;

  public:
    UnitDesigns(const ClusterBlocks& clusters, Index first_block, Index n)
        : clusters_(clusters), first_(first_block * lanes), k_(clusters.layout.q * clusters.layout.p1) {
        for (Index i = 0; i < n && !each_its_own_; ++i) add(i);
        if (each_its_own_) {
            members_.clear();
            for (Index i = 0; i < n; ++i) members_.push_back({i});
        }
    }

    // Rows that are left.
    Index n_rows() const {
        Index n = 0;
        for (const auto& of_design : members_) n += std::min<Index>(static_cast<Index>(of_design.size()), k_);
        return n;
    }
    // Writes them to places 0 … n_rows - 1 of the blocks at `data`.
    void write(double* data, double* counts) const {
        const Layout& layout = clusters_.layout;
        Index at = 0;
        for (const auto& of_design : members_) {
            const ColumnMajor rows = reduced(of_design);
            counts[at] = static_cast<double>(of_design.size());
            for (Index r = 0; r < rows.rows(); ++r, ++at) {
                double* to = data + at / lanes * layout.n_fields() * lanes + at % lanes;
                for (int f = 0; f < n_pairs(layout.q); ++f) to[f * lanes] = fields(of_design[0])[f * lanes];
                for (int j = 0; j < k_; ++j) to[(layout.qa(0, 0) + j) * lanes] = rows(r, j);
            }
        }
    }

  private:
    const double* fields(Index i) const {
        return clusters_.block((first_ + i) / lanes) + (first_ + i) % lanes;
    }
    bool same(Index i, Index j) const {
        for (int f = 0; f < n_pairs(clusters_.layout.q); ++f)
            if (std::memcmp(fields(i) + f * lanes, fields(j) + f * lanes, sizeof(double)) != 0) return false;
        return true;
    }
    void add(Index i) {
        for (auto& of_design : members_)
            if (same(of_design[0], i)) return of_design.push_back(i);
        members_.push_back({i});
        // Many designs among few units: no use
        each_its_own_ = members_.size() > max_designs;
    }
    ColumnMajor rows(const Index* members, Index n) const {
        ColumnMajor out(n, k_);
        const int at = clusters_.layout.qa(0, 0);
        for (Index i = 0; i < n; ++i)
            for (int j = 0; j < k_; ++j) out(i, j) = fields(members[i])[(at + j) * lanes];
        return out;
    }
    ColumnMajor reduced(const std::vector<Index>& members) const {
        const auto n = static_cast<Index>(members.size());
        if (n <= k_) return rows(members.data(), n);
        const Index step = std::max<Index>(3 * k_, 128);
        ColumnMajor R(0, k_);
        for (Index done = 0; done < n; done += step) {
            const Index more = std::min(step, n - done);
            ColumnMajor stacked(R.rows() + more, k_);
            stacked << R, rows(members.data() + done, more);
            R = triangle_of(stacked);
        }
        return R;
    }

    ClusterBlocks clusters_;
    Index first_;
    Index k_;
    std::vector<std::vector<Index>> members_;
    bool each_its_own_ = false;
};

}  // namespace detail

// Nothing where less than half of the blocks would go. The same bits for any number of threads.
inline std::optional<SharedUnits> share_nested(const NestedTree& tree, const ClusterBlocks& clusters,
                                               int n_threads, Interrupt& interrupt) {
    const NestedLevel& around = tree.levels[tree.depth() - 2];
    const auto designs = [&](Index i) {
        return detail::UnitDesigns(clusters, tree.first_block[i], around.first[i + 1] - around.first[i]);
    };
    // A few units, spread evenly, tell whether designs repeat.
    constexpr Index max_sample = 32;
    const Index sample = std::min(around.m, max_sample);
    Index left = 0, before = 0;
    for (Index s = 0; s < sample; ++s) {
        const Index i = s * around.m / sample;
        left += (designs(i).n_rows() + lanes - 1) / lanes;
        before += tree.first_block[i + 1] - tree.first_block[i];
    }
    if (2 * left >= before) return std::nullopt;

    constexpr Index units_each = 16;
    const Index n_tasks = (around.m + units_each - 1) / units_each;
    const auto for_units = [&](const auto& work) {
        parallel_for(n_tasks, n_threads, interrupt, [&](Index task) {
            for (Index i = task * units_each; i < std::min(around.m, (task + 1) * units_each); ++i) work(i);
        });
    };
    SharedUnits out;
    out.first_block.assign(static_cast<std::size_t>(around.m + 1), 0);
    for_units([&](Index i) { out.first_block[i + 1] = (designs(i).n_rows() + lanes - 1) / lanes; });
    for (Index i = 0; i < around.m; ++i) out.first_block[i + 1] += out.first_block[i];
    const Index n_blocks = out.first_block.back(), block = clusters.layout.n_fields() * lanes;
    out.data = AlignedDoubles(static_cast<std::size_t>(n_blocks * block));
    out.counts = AlignedDoubles(static_cast<std::size_t>(n_blocks * lanes));
    std::fill_n(out.data.data(), out.data.size(), 0.0);
    std::fill_n(out.counts.data(), out.counts.size(), 0.0);
    for_units([&](Index i) {
        designs(i).write(out.data.data() + out.first_block[i] * block,
                         out.counts.data() + out.first_block[i] * lanes);
    });
    return out;
}

}  // namespace lmmfast
