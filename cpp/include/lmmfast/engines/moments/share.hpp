// Clusters of one design put together: exact, and the cost of a pass is then that of the designs.
//
// Clusters of the same R_i enter the totals by the cross-products of the rows vec(Q_i'A_i) alone, and
// linearly (docs/algorithm.md, eq. 2.16-2.17). So any orthogonal transformation of these m_c rows leaves
// the totals as they are, and that of their QR decomposition leaves q p1 rows that are not zero.
#pragma once

#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "lmmfast/base/aligned.hpp"
#include "lmmfast/base/parallel.hpp"
#include "lmmfast/compress/triangle.hpp"
#include "lmmfast/engines/designs.hpp"
#include "lmmfast/engines/moments/sums.hpp"

namespace lmmfast {

struct SharedClusters {
    Layout layout;
    Index n_designs = 0, n_blocks = 0;
    AlignedDoubles data, counts;  // as in ClusterBlocks

    ClusterBlocks blocks() const { return {layout, n_blocks, data.data(), counts.data()}; }
};

namespace detail {

// Clusters i_1 … i_n of one design -> rows vec(Q_i'A_i) with the same cross-products, at most q p1.
class DesignReducer {
  public:
    explicit DesignReducer(const ClusterBlocks& clusters)
        : clusters_(clusters), k_(clusters.layout.q * clusters.layout.p1) {}

    ColumnMajor reduce(const Index* members, Index n) const {
        if (n <= k_) return rows(members, n);
        if (k_ <= TriangleInLanes::max_k && n >= 4 * lanes * k_) return reduce_in_lanes(members, n);
        const Index step = std::max<Index>(3 * k_, 128);
        ColumnMajor R(0, k_);
        for (Index done = 0; done < n; done += step) {
            const Index more = std::min(step, n - done);
            ColumnMajor stacked(R.rows() + more, k_);
            stacked << R, rows(members + done, more);
            R = triangle_of(stacked);
        }
        return R;
    }

  private:
    const double* QA(Index i) const {
        return clusters_.block(i / lanes) + clusters_.layout.qa(0, 0) * lanes + i % lanes;
    }
    ColumnMajor rows(const Index* members, Index n) const {
        ColumnMajor out(n, k_);
        for (Index i = 0; i < n; ++i)
            for (int j = 0; j < k_; ++j) out(i, j) = QA(members[i])[j * lanes];
        return out;
    }
    ColumnMajor reduce_in_lanes(const Index* members, Index n) const {
        TriangleInLanes triangle(k_);
        for (Index i = 0; i < n; i += lanes) {
            const Index here = std::min<Index>(lanes, n - i);
            if (here == lanes && members[i] % lanes == 0 && members[i + lanes - 1] == members[i] + lanes - 1)
                load_block(QA(members[i]), triangle);
            else
                load_lanes(members + i, here, triangle);
            triangle.next_row();
        }
        return triangle.finish();
    }
    void load_block(const double* from, TriangleInLanes& triangle) const {
        for (int g = 0; g < packs_per_block; ++g)
            for (int j = 0; j < k_; ++j)
                triangle.row(g)[j * triangle.stride()] = Pack::load(from + j * lanes + g * Pack::size);
    }
    void load_lanes(const Index* members, Index n, TriangleInLanes& triangle) const {
        const double* from[lanes];
        for (Index lane = 0; lane < n; ++lane) from[lane] = QA(members[lane]);
        for (int j = 0; j < k_; ++j) {
            double values[lanes] = {};
            for (Index lane = 0; lane < n; ++lane) values[lane] = from[lane][j * lanes];
            for (int g = 0; g < packs_per_block; ++g)
                triangle.row(g)[j * triangle.stride()] = Pack::load_unaligned(values + g * Pack::size);
        }
    }

    ClusterBlocks clusters_;
    int k_;
};

// Whether `passes` passes over `left` clusters save more than putting m clusters together costs. Operations
// are counted: those of a cluster in a pass, dearer where sizes are not known to the compiler; those of a row
// in a QR decomposition, which does fewer at a time, and of fetching it, which costs little only where
// clusters of one design are neighbours. All in units of some 0.07 ns, measured.
inline bool sharing_pays(const Layout& layout, Index m, Index left, bool neighbours_alike, Index passes) {
    const Index q = layout.q, p1 = layout.p1, k = q * p1;
    const bool fixed = q <= max_fixed_q && p1 <= max_fixed_p1;
    const Index in_pass =
        (MomentLayout{layout.q, layout.p1}.size() / 2 + 2 * q * q * (q + p1)) * (fixed ? 1 : 2);
    const Index together = 4 * k * k + (neighbours_alike ? 60 : 400);
    return 2 * left < m && passes * (m - left) * in_pass > m * together;
}

// Clusters that are reduced together: of one design, and not too many, so that threads share the work.
struct Portion {
    Index begin, end;  // among the members
};

inline std::vector<Portion> portions(const std::vector<Index>& counts, Index k) {
    std::vector<Portion> out;
    Index begin = 0;
    for (const Index count : counts) {
        const Index parts = std::clamp<Index>(count / (128 * k), 1, 64);
        for (Index part = 0; part < parts; ++part)
            out.push_back({begin + count * part / parts, begin + count * (part + 1) / parts});
        begin += count;
    }
    return out;
}

// Clusters design by design, each in ascending order.
inline std::vector<Index> members(const Designs& designs) {
    std::vector<Index> next(designs.counts.size()), out(designs.of.size());
    std::exclusive_scan(designs.counts.begin(), designs.counts.end(), next.begin(), Index{0});
    for (std::size_t i = 0; i < designs.of.size(); ++i) out[next[designs.of[i]]++] = static_cast<Index>(i);
    return out;
}

// The rows of each design: those of its portions, stacked and reduced once more.
inline std::vector<ColumnMajor> reduced_rows(const ClusterBlocks& clusters, const Designs& designs,
                                             const std::vector<Index>& order, int n_threads,
                                             Interrupt& interrupt) {
    const Index k = Index{clusters.layout.q} * clusters.layout.p1;
    const DesignReducer reducer(clusters);
    const std::vector<Portion> parts = portions(designs.counts, k);
    std::vector<ColumnMajor> reduced(parts.size());
    parallel_for(static_cast<Index>(parts.size()), n_threads, interrupt, [&](Index t) {
        const auto [begin, end] = parts[t];
        reduced[t] = reducer.reduce(order.data() + begin, end - begin);
    });
    std::vector<ColumnMajor> out;
    std::size_t part = 0;
    Index end = 0;
    for (const Index count : designs.counts) {
        end += count;
        ColumnMajor rows = std::move(reduced[part]);
        while (parts[part++].end < end) {
            ColumnMajor stacked(rows.rows() + reduced[part].rows(), k);
            stacked << rows, reduced[part];
            rows = triangle_of(stacked);
        }
        out.push_back(std::move(rows));
    }
    return out;
}

}  // namespace detail

// The m clusters with those of one design put together; nothing where that would not be faster within so
// many passes. The same bits for any number of threads. `clusters` must be ordinary ones, without counts.
inline std::optional<SharedClusters> share_designs(const ClusterBlocks& clusters, Index m, Index passes,
                                                   int n_threads, Interrupt& interrupt) {
    constexpr Index few_clusters = 64;
    const Layout& layout = clusters.layout;
    const Index k = Index{layout.q} * layout.p1;
    if (m < few_clusters) return std::nullopt;
    const bool alike = neighbours_are_alike(clusters, m);
    if (!detail::sharing_pays(layout, m, 0, alike, passes)) return std::nullopt;
    const std::optional<Designs> designs = find_designs(clusters, m, m / 2);
    if (!designs) return std::nullopt;
    Index left = 0;
    for (const Index count : designs->counts) left += std::min(count, k);
    if (!detail::sharing_pays(layout, m, left, alike, passes)) return std::nullopt;

    const std::vector<Index> order = detail::members(*designs);
    const auto rows = detail::reduced_rows(clusters, *designs, order, n_threads, interrupt);
    SharedClusters out;
    out.layout = layout;
    out.n_designs = static_cast<Index>(rows.size());
    out.n_blocks = (left + lanes - 1) / lanes;
    out.data = AlignedDoubles(static_cast<std::size_t>(out.n_blocks * layout.n_fields() * lanes));
    out.counts = AlignedDoubles(static_cast<std::size_t>(out.n_blocks * lanes));
    std::fill_n(out.data.data(), out.data.size(), 0.0);
    std::fill_n(out.counts.data(), out.counts.size(), 0.0);
    Index at = 0, first = 0;
    for (std::size_t c = 0; c < rows.size(); ++c) {
        const Index known_by = order[first];
        const double* R = clusters.block(known_by / lanes) + known_by % lanes;
        out.counts.data()[at] = static_cast<double>(designs->counts[c]);
        for (Index r = 0; r < rows[c].rows(); ++r, ++at) {
            double* to = out.data.data() + at / lanes * layout.n_fields() * lanes + at % lanes;
            for (int f = 0; f < n_pairs(layout.q); ++f) to[f * lanes] = R[f * lanes];
            for (Index j = 0; j < k; ++j) to[(layout.qa(0, 0) + j) * lanes] = rows[c](r, j);
        }
        first += designs->counts[c];
    }
    return out;
}

}  // namespace lmmfast
