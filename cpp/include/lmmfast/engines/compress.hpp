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
#include <cstring>
#include <limits>
#include <vector>

#include "lmmfast/clusters.hpp"
#include "lmmfast/engines/cross_products.hpp"
#include "lmmfast/packs.hpp"
#include "lmmfast/parallel.hpp"
#include "lmmfast/rows.hpp"
#include "lmmfast/staging.hpp"

namespace lmmfast {

// What compression leaves besides the clusters themselves.
struct CompressedSums {
    std::vector<double> gram;  // (p1, p1): sum of A_i'A_i
    std::vector<double> perp;  // (p1, p1): sum of A_i'(I - Q_i Q_i')A_i
    double log_weights = 0.0;  // sum of log w
    double min_weight = std::numeric_limits<double>::infinity();
    Index rank_Z = 0;         // sum of the ranks of the Z_i
    bool as_expected = true;  // whether columns with an expected value had it in every row
};

namespace detail {

// [Z A] of eight clusters: column c of pack g of clusters holds its rows one after the other, at
// (c * packs_per_block + g) * n_rows. Clusters with fewer rows end in zeros.
class Tile {
  public:
    static constexpr int max_rows = 32;
    struct Segment {
        int begin = 0;  // among the staged rows
        int n = 0;
    };
    using Segments = std::array<Segment, lanes>;

    explicit Tile(int n_columns)
        : values_(static_cast<std::size_t>(n_columns) * packs_per_block * max_rows) {}

    void set_rows(int n_rows) { n_rows_ = n_rows; }
    int n_rows() const { return n_rows_; }
    Pack* column(int c, int g) {
        return &values_[static_cast<std::size_t>(c * packs_per_block + g) * n_rows_];
    }
    void set(int c, int row, int lane, double value) {
        reinterpret_cast<double*>(column(c, lane / Pack::size) + row)[lane % Pack::size] = value;
    }
    void clear(int c) { std::fill_n(column(c, 0), packs_per_block * n_rows_, Pack::zero()); }

    // Which rows of which cluster there are, from row `first` on.
    void set_segments(const Segments& segments, int first) {
        first_ = first;
        std::array<double, lanes> counts;
        for (int lane = 0; lane < lanes; ++lane) {
            const auto [begin, n] = segments[lane];
            counts[lane] = n;
            for (int r = 0; r < n_rows_ - first; r += Pack::size)
                from_[r / Pack::size * lanes + lane] = r < n ? begin + r : 0;
        }
        for (int g = 0; g < packs_per_block; ++g) {
            const Pack count = Pack::load_unaligned(counts.data() + g * Pack::size);
            for (int r = 0; r < n_rows_ - first; ++r)
                masks_[g * max_rows + r].v = Eigen::internal::pcmp_lt(Pack::all(r).v, count.v);
        }
    }
    // Column c from staged values: rows `first` … n_rows - 1, which are N if that is not zero.
    template <int N>
    void load(int c, const double* staged) {
        const int n = N > 0 ? N : n_rows_ - first_;
        for (int g = 0; g < packs_per_block; ++g) {
            Pack* to = column(c, g) + first_;
            const Pack* mask = &masks_[g * max_rows];
            for (int r = 0; r < n; r += Pack::size) {
                const int* from = &from_[r / Pack::size * lanes + g * Pack::size];
                Eigen::internal::PacketBlock<Pack::Packet, Pack::size> square;
                for (int k = 0; k < Pack::size; ++k)
                    square.packet[k] = Pack::load_unaligned(staged + from[k]).v;
                Eigen::internal::ptranspose(square);
                const int used = N > 0 && N % Pack::size == 0 ? Pack::size : std::min(Pack::size, n - r);
                for (int k = 0; k < used; ++k)
                    to[r + k].v = Eigen::internal::pand(mask[r + k].v, square.packet[k]);
            }
        }
    }

  private:
    std::vector<Pack> values_;
    int n_rows_ = 0, first_ = 0;
    std::array<int, lanes * max_rows> from_;  // where a register's worth of rows of a lane begins
    std::array<Pack, packs_per_block * max_rows> masks_;
};

class BlockCompressor {
    // A column of Z whose part beyond the earlier ones is smaller than this is taken to be dependent.
    static constexpr double rank_tolerance = 1e-13;

  public:
    BlockCompressor(const Layout& layout, const Rows& rows)
        : layout_(layout),
          rows_(rows),
          n_columns_(layout.q + layout.p1),
          staged_(rows, lanes * Tile::max_rows),
          tile_(n_columns_),
          same_as_(static_cast<std::size_t>(n_columns_), -1),
          fields_(static_cast<std::size_t>(layout.n_fields()) * packs_per_block),
          perp_(layout.p1, rows.n_single),
          projected_(layout.p1, rows.n_single) {
        set_active();
    }

    // Clusters first … first+7 (those that exist) into `out` (n_fields, lanes).
    void compress(Index first, double* out) {
        const Index last = std::min(first + lanes, rows_.n_clusters);
        bool large = false;
        for (Index i = first; i < last; ++i) large |= size(i) > Tile::max_rows;
        compress_small(first, last, out);
        if (!large) return;
        for (Index i = first; i < last; ++i)
            if (size(i) > Tile::max_rows) compress_large(rows_.ptr[i], rows_.ptr[i + 1], out + (i - first));
    }

    void finish(CompressedSums& sums) const {
        perp_.write(sums.perp);
        projected_.write(sums.gram);
        for (std::size_t e = 0; e < sums.gram.size(); ++e) sums.gram[e] += sums.perp[e];
        sums.log_weights = staged_.log_weights();
        sums.min_weight = staged_.min_weight();
        sums.as_expected = staged_.as_expected();
        sums.rank_Z = rank_of_large_ + static_cast<Index>(rank_.sum());
    }

  private:
    Index size(Index i) const { return rows_.ptr[i + 1] - rows_.ptr[i]; }
    static int longest(const Tile::Segments& segments) {
        int n = 0;
        for (const auto& s : segments) n = std::max(n, s.n);
        return n;
    }

    // All clusters that fit into the tile, the others left out.
    void compress_small(Index first, Index last, double* out) {
        Tile::Segments segments{};
        int staged = 0;
        for (Index i = first; i < last;) {  // neighbours are read together
            Index end = i;
            const int begin = staged;
            for (; end < last && size(end) <= Tile::max_rows; ++end) {
                segments[end - first] = {staged, static_cast<int>(size(end))};
                staged += static_cast<int>(size(end));
            }
            if (staged > begin) staged_.read(rows_.ptr[i], staged - begin, begin);
            i = std::max(end, i + 1);
        }
        find_same_columns(staged);
        // Sizes that the compiler knows keep columns in registers.
        const int n = longest(segments);
        tile_.set_rows(n <= 4 ? 4 : n <= 8 ? 8 : n);
        tile_.set_segments(segments, 0);
        if (tile_.n_rows() == 4)
            load_and_reduce<4>(out);
        else if (tile_.n_rows() == 8)
            load_and_reduce<8>(out);
        else
            load_and_reduce<0>(out);
        add_projected(out);
    }

    // Columns of X that are columns of Z in these rows: Q'x is a column of R, and nothing is left of x.
    void find_same_columns(int n) {
        if (n == 0) return;
        bool changed = false;
        for (int j = layout_.q; j < n_columns_ - 1; ++j) {
            const int before = same_as_[j];
            if (before >= 0 && same(j, before, n)) continue;
            same_as_[j] = -1;
            for (int k = 0; k < layout_.q && same_as_[j] < 0; ++k)
                if (same(j, k, n)) same_as_[j] = k;
            changed |= same_as_[j] != before;
        }
        if (changed) set_active();
    }
    bool same(int j, int k, int n) const {
        const double *x = staged_.column(j), *z = staged_.column(k);
        return x[0] == z[0] && std::memcmp(x, z, static_cast<std::size_t>(n) * sizeof(double)) == 0;
    }
    // The columns that go through the tile, and where their products with the columns of Q go.
    void set_active() {
        active_.clear();
        targets_.clear();
        for (int c = 0; c < n_columns_; ++c)
            if (same_as_[c] < 0) active_.push_back(c);
        for (const int c : active_)
            for (int k = 0; k < layout_.q; ++k) targets_.push_back(field(k, c) * lanes);
    }

    // Gram-Schmidt on the tile; R and Q'A go to `out`, the rest is summed into perp.
    template <int N>
    void load_and_reduce(double* out) {
        for (std::size_t c = 0; c < active_.size(); ++c)
            tile_.load<N>(static_cast<int>(c), staged_.column(active_[c]));
        reduce<N>(out);
    }
    template <int N>
    void reduce(double* out) {
        for (int g = 0; g < packs_per_block; ++g) reduce_pack<N>(g, out + g * Pack::size);
        for (int j = layout_.q; j < n_columns_ - 1; ++j)
            if (same_as_[j] >= 0) copy_same(j, same_as_[j], out);
        if (perp_.as_products()) add_perp_panel();
    }
    template <int N>
    void reduce_pack(int g, double* out) {
        const int q = layout_.q, n = N > 0 ? N : tile_.n_rows(), n_active = static_cast<int>(active_.size());
        for (int c = 0; c < n_active; ++c) {
            Pack* a = tile_.column(c, g);
            const int* target = &targets_[static_cast<std::size_t>(c) * q];
            const Pack norm2 = c < q ? dot<N>(a, a, n) : Pack::zero();
            if (c >= q) {
                project_out_all<N>(tile_, g, q, a, n, out, target);
                continue;
            }
            for (int k = 0; k < c; ++k) project_out<N>(tile_.column(k, g), a, n).store(out + target[k]);
            const Pack r2 = c == 0 ? norm2 : dot<N>(a, a, n);
            const Pack independent = less(norm2 * (rank_tolerance * rank_tolerance), r2);
            const Pack root = r2.sqrt();
            both(independent, root).store(out + target[c]);
            const Pack r_inv = both(independent, root.inverse());
            rank_ += both(independent, Pack::all(1.0));
            for (int i = 0; i < n; ++i) a[i] *= r_inv;
        }
        if (perp_.as_products()) return;
        for (int j = q; j < n_active; ++j) {
            Pack* sums = &perp_.sum(active_[j] - q, 0);
            for (int k = q; k <= j; ++k)
                sums[active_[k] - q] += dot<N>(tile_.column(j, g), tile_.column(k, g), n);
        }
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
        const int n = tile_.n_rows() * lanes, n_active = static_cast<int>(active_.size());
        panel_.resize(static_cast<std::size_t>(layout_.p1) * n);
        std::fill(panel_.begin(), panel_.end(), 0.0);
        for (int c = layout_.q; c < n_active; ++c)
            std::copy_n(reinterpret_cast<const double*>(tile_.column(c, 0)), n,
                        &panel_[static_cast<std::size_t>(active_[c] - layout_.q) * n]);
        perp_.add_panel(panel_.data(), n);
    }

    static Pack less(Pack a, Pack b) { return {Eigen::internal::pcmp_lt(a.v, b.v)}; }
    static Pack both(Pack mask, Pack a) { return {Eigen::internal::pand(mask.v, a.v)}; }

    template <int N>
    static Pack dot(const Pack* a, const Pack* b, int n) {
        if constexpr (N > 0) {
            Pack even = a[0] * b[0], odd = a[1] * b[1];
            unroll<N / 2 - 1>([&](auto i) {
                even = multiply_add(a[2 * i + 2], b[2 * i + 2], even);
                odd = multiply_add(a[2 * i + 3], b[2 * i + 3], odd);
            });
            return even + odd;
        } else {
            Pack sum = Pack::zero();
            for (int i = 0; i < n; ++i) sum = multiply_add(a[i], b[i], sum);
            return sum;
        }
    }
    // The same for the first q columns of the tile, a staying in registers where N is known.
    template <int N>
    static void project_out_all(Tile& tile, int g, int q, Pack* a, int n, double* out, const int* target) {
        if constexpr (N > 0) {
            Pack rest[N];
            unroll<N>([&](auto i) { rest[i] = a[i]; });
            for (int k = 0; k < q; ++k) project_out<N>(tile.column(k, g), rest, n).store(out + target[k]);
            unroll<N>([&](auto i) { a[i] = rest[i]; });
        } else {
            for (int k = 0; k < q; ++k) project_out<N>(tile.column(k, g), a, n).store(out + target[k]);
        }
    }
    // s = z'a; a <- a - z s
    template <int N>
    static Pack project_out(const Pack* z, Pack* a, int n) {
        const Pack s = dot<N>(z, a, n), minus_s = -s;
        if constexpr (N > 0)
            unroll<N>([&](auto i) { a[i] = multiply_add(z[i], minus_s, a[i]); });
        else
            for (int i = 0; i < n; ++i) a[i] = multiply_add(z[i], minus_s, a[i]);
        return s;
    }

    // (Q'A)'(Q'A) of a block
    void add_projected(const double* block) {
        for (int k = 0; k < layout_.q; ++k) {
            const double* QA = block + layout_.qa(k, 0) * lanes;
            if (projected_.as_products())
                projected_.add_panel(QA, lanes);
            else
                projected_.add_lanes(QA);
        }
    }

    // A cluster longer than the tile: its rows go through the lanes in eight strands, each strand
    // tile after tile with its R and Q'A carried on top; then the eight are stacked and reduced.
    void compress_large(Index begin, Index end, double* out_lane) {
        const int q = layout_.q, room = Tile::max_rows - q;
        const Index n = end - begin;
        double* fields = reinterpret_cast<double*>(fields_.data());
        std::fill(same_as_.begin(), same_as_.end(), -1);
        set_active();
        const Pack rank_before = rank_;
        std::array<Index, lanes + 1> strand;
        for (int lane = 0; lane <= lanes; ++lane) strand[lane] = begin + n * lane / lanes;
        bool first = true;
        for (Index done = 0; done < strand[lanes] - strand[lanes - 1];) {
            Tile::Segments segments{};
            const int carried = first ? 0 : q, step = first ? Tile::max_rows : room;
            for (int lane = 0; lane < lanes; ++lane) {
                const Index left = strand[lane + 1] - strand[lane] - done;
                segments[lane] = {lane * Tile::max_rows, static_cast<int>(std::clamp<Index>(left, 0, step))};
                staged_.read(strand[lane] + done, segments[lane].n, segments[lane].begin);
            }
            tile_.set_rows(carried + longest(segments));
            if (carried) carry_strands(fields);
            tile_.set_segments(segments, carried);
            load_and_reduce<0>(fields);
            done += step;
            first = false;
        }
        merge_strands(fields);
        for (int f = 0; f < layout_.n_fields(); ++f) {
            out_lane[f * lanes] = fields[f * lanes];
            std::fill_n(fields + f * lanes + 1, lanes - 1, 0.0);
        }
        add_projected(fields);
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
            reduce<0>(fields);
        }
    }

    Layout layout_;
    const Rows& rows_;
    int n_columns_;
    StagedRows staged_;
    Tile tile_;
    std::vector<int> same_as_;  // (q + p1,): the column of Z that a column of X is; -1: none
    std::vector<Pack> fields_;  // (n_fields, lanes) of a large cluster
    CrossProducts perp_, projected_;
    std::vector<int> active_, targets_;  // (n_active,), (n_active, q)
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
        constexpr Index blocks_between_checks = 64;
        detail::BlockCompressor compressor(layout, rows);
        for (Index b = k * n_blocks / n_sums; b < (k + 1) * n_blocks / n_sums; ++b) {
            if (b % blocks_between_checks == 0) interrupt.check();
            compressor.compress(b * lanes, out + b * layout.n_fields() * lanes);
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
    }
    return total;
}

}  // namespace lmmfast
