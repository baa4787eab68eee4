// Rows -> compressed clusters: thin QR of each Z_i by modified Gram-Schmidt, eight clusters at a time.
//
// Modified Gram-Schmidt on [Z A] gives R and Q'A as accurately as Householder reflections do
// (Björck 1967), never forms Z'Z, and leaves (I - QQ')A behind, whose cross-products are summed
// (docs/algorithm.md, eq. 2.3). Rows are brought into the working basis one after the other
// (staging.hpp), then laid side by side by transposing, a register's worth of clusters at a time.
#pragma once

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "lmmfast/base/packs.hpp"
#include "lmmfast/base/parallel.hpp"
#include "lmmfast/compress/cross_products.hpp"
#include "lmmfast/compress/direct_rows.hpp"
#include "lmmfast/compress/same_columns.hpp"
#include "lmmfast/compress/tile.hpp"
#include "lmmfast/rows/clusters.hpp"
#include "lmmfast/rows/rows.hpp"
#include "lmmfast/rows/staging.hpp"

namespace lmmfast {

// What compression leaves besides the clusters themselves.
struct CompressedSums {
    std::vector<double> gram;  // (p1, p1): sum of A_i'A_i
    std::vector<double> perp;  // (p1, p1): sum of A_i'(I - Q_i Q_i')A_i
    double log_weights = 0.0;  // sum of log w
    double min_weight = std::numeric_limits<double>::infinity();
    Index rank_Z = 0;         // sum of the ranks of the Z_i
    bool as_expected = true;  // whether columns with an expected value had it in every row
    std::vector<int> z_in_x;  // (q,): the column of X that each column of Z is too; empty: not all are
};

namespace detail {

class BlockCompressor {
    // A column of Z whose part beyond the earlier ones is smaller than this is taken to be dependent.
    static constexpr double rank_tolerance = 1e-13;

  public:
    BlockCompressor(const Layout& layout, const Rows& rows)
        : layout_(layout),
          rows_(rows),
          n_columns_(layout.q + layout.p1),
          staged_(rows, lanes * Tile::max_rows),
          direct_(rows, n_columns_),
          tile_(n_columns_ + 1),
          same_(layout.q, n_columns_),
          all_(n_columns_),
          columns_(n_columns_),
          fields_(static_cast<std::size_t>(layout.n_fields()) * packs_per_block),
          perp_(layout.p1, rows.n_single),
          projected_(layout.p1, rows.n_single) {
        set_active(all_);
        set_active(columns_);
    }

    // Some blocks of eight clusters from block `first` on into `out` (n_fields, lanes) each. Returns the
    // first of `end` blocks that is left.
    Index compress(Index first, Index end, double* out) {
        Index last = compress_directly(first, std::min(first + blocks_at_once, end), out);
        // One block is enough to see which columns are the same.
        if (last == first) last = compress_staged(first, direct_planned_ ? end : first + 1, out);
        add_projected(out, last - first);
        return last;
    }

    void finish(CompressedSums& sums) const {
        perp_.write(sums.perp);
        projected_.write(sums.gram);
        for (std::size_t e = 0; e < sums.gram.size(); ++e) sums.gram[e] += sums.perp[e];
        sums.log_weights = staged_.log_weights();
        sums.min_weight = staged_.min_weight();
        sums.as_expected = staged_.as_expected();
        sums.rank_Z = rank_of_large_ + static_cast<Index>(rank_.sum());
        sums.z_in_x = same_.z_in_x();
    }

  private:
    static constexpr Index blocks_at_once = 8;  // that need no staging

    // Columns of [Z A] that go through the tile
    struct Columns {
        std::vector<int> same_as;          // (q + p1,): the column of Z that a column of X is; -1: none
        std::vector<int> active, targets;  // (n_active,), (n_active, q): where products with Q go

        explicit Columns(int n_columns) : same_as(static_cast<std::size_t>(n_columns), -1) {}
    };

    // Blocks whose rows need no staging: from `first` on up to `last`, or to the first that does.
    Index compress_directly(Index first, Index last, double* out) {
        if (!direct_planned_ || !direct_.possible()) return first;
        while (last > first && row(last * lanes) + DirectRows::beyond > row(rows_.n_clusters)) --last;
        const Index* ptr = rows_.ptr + first * lanes;
        for (Index b = first; b < last; ++b, ptr += lanes, out += block_size()) {
            const Index begin = ptr[0], n = ptr[lanes] - begin;
            if (n > Index{lanes} * Tile::max_rows) return b;
            const auto segments = Tile::Segments::behind_one_another(ptr, begin);
            if (segments.longest() > Tile::max_rows) return b;
            tile_.begin(segments);
            if (!direct_.load(begin, begin + n, segments, tile_)) return b;
            reduce_rows<false>(out);
        }
        return last;
    }
    // As many blocks as can be staged at once.
    Index compress_staged(Index first, Index end, double* out) {
        Index last = first + 1;
        if (const Index begin = row(first * lanes); fits(first))
            while (last < end && fits(last) && row((last + 1) * lanes) - begin <= staged_.capacity()) ++last;
        stage(first, last);
        // The rows of the next blocks come from memory while these are reduced, a part of them at a time.
        const Index next = row(last * lanes);
        const Index more = std::min<Index>(staged_.capacity(), row(end * lanes) - next);
        for (Index b = first; b < last; ++b) {
            const Index n = more / (last - first) + 1, from = next + (b - first) * n;
            staged_.prefetch(from, std::clamp<Index>(next + more - from, 0, n));
            compress_small(b, out + (b - first) * block_size());
        }
        if (last == first + 1) compress_larges(first, out);
        return last;
    }

    Index block_size() const { return Index{layout_.n_fields()} * lanes; }
    Index row(Index cluster) const { return rows_.ptr[std::min(cluster, rows_.n_clusters)]; }
    Index size(Index i) const { return row(i + 1) - row(i); }
    bool fits(Index block) const {
        bool fits = true;
        for (Index i = block * lanes; i < (block + 1) * lanes; ++i) fits &= size(i) <= Tile::max_rows;
        return fits;
    }

    // The rows of all clusters that fit into the tile, the others left out; neighbours are read together.
    void stage(Index first_block, Index last_block) {
        begins_.clear();
        int staged = 0;
        const Index last = std::min(last_block * lanes, rows_.n_clusters);
        for (Index i = first_block * lanes; i < last;) {
            const Index first = i;
            const int begin = staged;
            for (; i < last && size(i) <= Tile::max_rows; ++i) {
                begins_.push_back(staged);
                staged += static_cast<int>(size(i));
            }
            staged_.read(row(first), staged - begin, begin);
            for (; i < last && size(i) > Tile::max_rows; ++i) begins_.push_back(staged);
        }
        begins_.resize(static_cast<std::size_t>(last_block - first_block) * lanes + 1, staged);
        first_staged_ = first_block;
        find_same_columns(staged);
    }
    // Those clusters of a block that fit into the tile; the lanes of the others become zeros.
    void compress_small(Index block, double* out) {
        const int* begins = &begins_[static_cast<std::size_t>(block - first_staged_) * lanes];
        tile_.begin(Tile::Segments::behind_one_another(begins, 0));
        reduce_rows<true>(out);
    }
    void compress_larges(Index block, double* out) {
        for (int lane = 0; lane < lanes; ++lane)
            if (const Index i = block * lanes + lane; size(i) > Tile::max_rows)
                compress_large(row(i), row(i + 1), out + lane);
    }

    // Columns of X that are columns of Z in n staged rows: Q'x is a column of R, and nothing is left of x.
    void find_same_columns(int n) {
        if (n == 0 || (!same_.find(staged_, n) && direct_planned_)) return;
        columns_.same_as = same_.now();
        set_active(columns_);
        direct_.plan(columns_.active, columns_.same_as);
        direct_planned_ = true;
    }
    void set_active(Columns& columns) const {
        columns.active.clear();
        columns.targets.clear();
        for (int c = 0; c < n_columns_; ++c)
            if (columns.same_as[c] < 0) columns.active.push_back(c);
        for (const int c : columns.active)
            for (int k = 0; k < layout_.q; ++k) columns.targets.push_back(field(k, c) * lanes);
    }

    // Gram-Schmidt; R and Q'A go to `out`, the rest is summed into perp. Of rows that are staged, or that the
    // tile holds but for its constant columns.
    template <bool Staged>
    void reduce_rows(double* out) {
        switch (tile_.n_rows()) {
            case 4:
                return reduce_few<Staged, 4>(out);
            case 8:
                return reduce_few<Staged, 8>(out);
            default:
                for (std::size_t c = 0; c < columns_.active.size(); ++c)
                    for (int g = 0; g < packs_per_block; ++g)
                        fetch<Staged, 0>(static_cast<int>(c), g, tile_.column(static_cast<int>(c), g));
                reduce<Staged, 0, 0>(out);
        }
    }
    template <bool Staged, int N>
    void reduce_few(double* out) {
        switch (layout_.q) {
            case 1:
                return reduce<Staged, N, 1>(out);
            case 2:
                return reduce<Staged, N, 2>(out);
            default:
                return reduce<Staged, N, 0>(out);
        }
    }
    // If N is zero on what the tile holds, else on N staged rows, of which columns go through registers to
    // the tile. Q fixes q; 0: any.
    template <bool Staged, int N, int Q>
    void reduce(double* out) {
        for (int g = 0; g < packs_per_block; ++g) reduce_pack<Staged, N, Q>(g, out + g * Pack::size);
        for (int j = layout_.q; j < n_columns_ - 1; ++j)
            if (columns_.same_as[j] >= 0) copy_same(j, columns_.same_as[j], out);
        if (perp_.as_products()) add_perp_panel();
    }
    template <bool Staged, int N, int Q>
    LMMFAST_FLATTEN void reduce_pack(int g, double* out) {
        const int q = Q > 0 ? Q : layout_.q, n_active = static_cast<int>(columns_.active.size());
        for (int c = 0; c < q; ++c) reduce_column<Staged, N, 0>(g, c, c, out);
        for (int c = q; c < n_active; ++c) reduce_column<Staged, N, Q>(g, c, q, out);
    }
    // Column c less its parts along the first n_before columns. Before fixes their number; 0: any.
    template <bool Staged, int N, int Before>
    void reduce_column(int g, int c, int n_before, double* out) {
        const int q = layout_.q, n = tile_.n_rows();
        Pack* column = tile_.column(c, g);
        Pack registers[N > 0 ? N : 1];
        Pack* a = N > 0 ? registers : column;
        if constexpr (N > 0) fetch<Staged, N>(c, g, a);
        const int* target = &columns_.targets[static_cast<std::size_t>(c) * q];
        const Pack norm2 = c < q ? dot<N>(a, a, n) : Pack::zero();
        const auto take_out = [&](int k) { project_out<N>(tile_.column(k, g), a, n).store(out + target[k]); };
        if constexpr (Before > 0)
            unroll<Before>(take_out);
        else
            for (int k = 0; k < n_before; ++k) take_out(k);
        if (c < q) normalise<N>(a, n, norm2, c > 0, out + target[c]);
        if constexpr (N > 0) unroll<N>([&](auto i) { column[i] = a[i]; });
        if (c >= q && !perp_.as_products()) add_perp<N>(c, g, a, n);
    }
    template <bool Staged, int N>
    void fetch(int c, int g, Pack* a) {
        const double* staged = staged_.column(columns_.active[c]);
        if (staged_.is_constant(columns_.active[c]))
            tile_.fetch_constant<N>(g, staged[0], a);
        else if constexpr (Staged)
            tile_.fetch<N>(g, staged, a);
        else if constexpr (N > 0)
            unroll<N>([&](auto i) { a[i] = tile_.column(c, g)[i]; });
    }
    // A column of Z whose square was norm2 before the others were taken out of it.
    template <int N>
    void normalise(Pack* a, int n, Pack norm2, bool changed, double* out) {
        const Pack r2 = changed ? dot<N>(a, a, n) : norm2;
        const Pack independent = less(norm2 * (rank_tolerance * rank_tolerance), r2);
        const Pack root = r2.sqrt();
        both(independent, root).store(out);
        const Pack r_inv = both(independent, root.inverse());
        rank_ += both(independent, Pack::all(1.0));
        for_rows<N>(n, [&](auto i) { a[i] *= r_inv; });
    }
    template <int N>
    void add_perp(int c, int g, const Pack* a, int n) {
        const int q = layout_.q;
        Pack* sums = &perp_.sum(columns_.active[c] - q, 0);
        for (int k = q; k < c; ++k) sums[columns_.active[k] - q] += dot<N>(a, tile_.column(k, g), n);
        sums[columns_.active[c] - q] += dot<N>(a, a, n);
    }
    // Q'x of a column of X that is column k of Z
    void copy_same(int j, int k, double* out) const {
        for (int a = 0; a < layout_.q; ++a) {
            double* to = out + layout_.qa(a, j - layout_.q) * lanes;
            if (a <= k)
                std::copy_n(out + layout_.r(a, k) * lanes, lanes, to);
            else
                std::fill_n(to, lanes, 0.0);
        }
    }
    void add_perp_panel() {
        const int n = tile_.n_rows() * lanes, n_active = static_cast<int>(columns_.active.size());
        panel_.resize(static_cast<std::size_t>(layout_.p1) * n);
        std::fill(panel_.begin(), panel_.end(), 0.0);
        for (int c = layout_.q; c < n_active; ++c)
            std::copy_n(reinterpret_cast<const double*>(tile_.column(c, 0)), n,
                        &panel_[static_cast<std::size_t>(columns_.active[c] - layout_.q) * n]);
        perp_.add_panel(panel_.data(), n);
    }

    static Pack less(Pack a, Pack b) { return {Eigen::internal::pcmp_lt(a.v, b.v)}; }
    static Pack both(Pack mask, Pack a) { return {Eigen::internal::pand(mask.v, a.v)}; }

    template <int N>
    static Pack dot(const Pack* a, const Pack* b, int n) {
        if constexpr (N > 0) {
            constexpr int half = N / 2;
            Pack sum[half];
            unroll<half>([&](auto i) { sum[i] = a[i] * b[i]; });
            unroll<half>([&](auto i) { sum[i] = multiply_add(a[half + i], b[half + i], sum[i]); });
            if constexpr (half == 4) return (sum[0] + sum[1]) + (sum[2] + sum[3]);
            return sum[0] + sum[1];
        } else {
            Pack sum = Pack::zero();
            for (int i = 0; i < n; ++i) sum = multiply_add(a[i], b[i], sum);
            return sum;
        }
    }
    // s = z'a; a <- a - z s
    template <int N>
    static Pack project_out(const Pack* z, Pack* a, int n) {
        const Pack s = dot<N>(z, a, n), minus_s = -s;
        for_rows<N>(n, [&](auto i) { a[i] = multiply_add(z[i], minus_s, a[i]); });
        return s;
    }

    // (Q'A)'(Q'A) of blocks behind one another
    void add_projected(const double* blocks, Index n) {
        for (int k = 0; k < layout_.q; ++k) {
            const double* QA = blocks + layout_.qa(k, 0) * lanes;
            if (!projected_.as_products())
                projected_.add_lanes(QA, static_cast<int>(n), static_cast<int>(block_size()));
            for (Index b = 0; projected_.as_products() && b < n; ++b)
                projected_.add_panel(QA + b * block_size(), lanes);
        }
    }

    // A cluster longer than the tile: its rows go through the lanes in eight strands, each strand
    // tile after tile with its R and Q'A carried on top; then the eight are stacked and reduced.
    void compress_large(Index begin, Index end, double* out_lane) {
        const int q = layout_.q, room = Tile::max_rows - q;
        const Index n = end - begin;
        double* fields = reinterpret_cast<double*>(fields_.data());
        std::swap(columns_, all_);  // for now
        const Pack rank_before = rank_;
        std::array<Index, lanes + 1> strand;
        for (int lane = 0; lane <= lanes; ++lane) strand[lane] = begin + n * lane / lanes;
        bool first = true;
        for (Index done = 0; done < strand[lanes] - strand[lanes - 1];) {
            Tile::Segments segments;
            const int carried = first ? 0 : q, step = first ? Tile::max_rows : room;
            for (int lane = 0; lane < lanes; ++lane) {
                const Index left = strand[lane + 1] - strand[lane] - done;
                segments.begin[lane] = lane * Tile::max_rows;
                segments.size[lane] = static_cast<int>(std::clamp<Index>(left, 0, step));
                staged_.read(strand[lane] + done, segments.size[lane], segments.begin[lane]);
            }
            for (int lane = 0; lane < lanes; ++lane)
                if (segments.size[lane] > 0) same_.note(staged_, segments.begin[lane], segments.size[lane]);
            tile_.set_rows(carried + segments.longest());
            if (carried) carry_strands(fields);
            tile_.set_segments(segments, carried);
            for (std::size_t c = 0; c < columns_.active.size(); ++c)
                tile_.load<0>(static_cast<int>(c), staged_.column(columns_.active[c]));
            reduce<true, 0, 0>(fields);
            done += step;
            first = false;
        }
        merge_strands(fields);
        for (int f = 0; f < layout_.n_fields(); ++f) {
            out_lane[f * lanes] = fields[f * lanes];
            std::fill_n(fields + f * lanes + 1, lanes - 1, 0.0);
        }
        std::swap(columns_, all_);
        rank_ = rank_before;
        for (int k = 0; k < q; ++k) rank_of_large_ += fields[layout_.r(k, k) * lanes] > 0.0;
    }
    // Entry (k, c) of [R Q'A]; -1: zero.
    int field(int k, int c) const {
        if (c >= layout_.q) return layout_.qa(k, c - layout_.q);
        return c >= k ? layout_.r(k, c) : -1;
    }
    void carry_strands(const double* fields) {
        for (int k = 0; k < layout_.q; ++k)
            for (int c = 0; c < n_columns_; ++c) {
                const int f = field(k, c);
                for (int lane = 0; lane < lanes; ++lane)
                    tile_.set(c, k, lane, f < 0 ? 0.0 : fields[f * lanes + lane]);
            }
    }
    // Reduce the eight [R Q'A] to one in lane 0: the result so far on top, the next strand below.
    void merge_strands(double* fields) {
        const int q = layout_.q;
        const std::vector<double> strands(fields, fields + layout_.n_fields() * lanes);
        tile_.set_rows(2 * q);
        for (int lane = 1; lane < lanes; ++lane) {
            for (int c = 0; c < n_columns_; ++c) {
                tile_.clear(c);
                for (int k = 0; k < q; ++k) {
                    const int f = field(k, c);
                    if (f < 0) continue;
                    tile_.set(c, k, 0, fields[f * lanes]);
                    tile_.set(c, q + k, 0, strands[f * lanes + lane]);
                }
            }
            reduce<true, 0, 0>(fields);
        }
    }

    Layout layout_;
    const Rows& rows_;
    int n_columns_;
    StagedRows staged_;
    DirectRows direct_;
    Tile tile_;
    SameColumns same_;
    Columns all_;               // every column by itself
    Columns columns_;           // those that are reduced: not those of X that are columns of Z
    std::vector<Pack> fields_;  // (n_fields, lanes) of a large cluster
    CrossProducts perp_, projected_;
    std::vector<int> begins_;      // where clusters begin among the staged rows, from a block on
    Index first_staged_ = 0;       // that block
    bool direct_planned_ = false;  // for the columns that are the same now
    std::vector<double> panel_;
    Pack rank_ = Pack::zero();
    Index rank_of_large_ = 0;
};

}  // namespace detail

// Compress rows.n_clusters clusters into `out`, (n_clusters + 7) / 8 blocks, 64-byte aligned.
inline CompressedSums compress(const Layout& layout, const Rows& rows, double* out, int n_threads,
                               Interrupt& interrupt) {
    const Index n_blocks = (rows.n_clusters + lanes - 1) / lanes;
    const Index n_sums = n_partial_sums(n_blocks, Index{layout.p1} * layout.p1);
    std::vector<CompressedSums> partial(static_cast<std::size_t>(n_sums));
    parallel_for(n_sums, n_threads, interrupt, [&](Index k) {
        detail::BlockCompressor compressor(layout, rows);
        const Index end = (k + 1) * n_blocks / n_sums;
        for (Index b = k * n_blocks / n_sums; b < end;) {
            interrupt.check();
            b = compressor.compress(b, end, out + b * layout.n_fields() * lanes);
        }
        compressor.finish(partial[k]);
    });
    CompressedSums total = std::move(partial[0]);
    for (Index k = 1; k < n_sums; ++k) {
        for (std::size_t e = 0; e < total.perp.size(); ++e) {
            total.gram[e] += partial[k].gram[e];
            total.perp[e] += partial[k].perp[e];
        }
        total.log_weights += partial[k].log_weights;
        total.min_weight = std::min(total.min_weight, partial[k].min_weight);
        total.rank_Z += partial[k].rank_Z;
        total.as_expected &= partial[k].as_expected;
        if (partial[k].z_in_x != total.z_in_x) total.z_in_x.clear();
    }
    return total;
}

}  // namespace lmmfast
