// Rows -> compressed clusters: thin QR of each Z_i by modified Gram-Schmidt, eight clusters at a time.
//
// Modified Gram-Schmidt on [Z A] gives R and Q'A as accurately as Householder reflections do
// (Björck 1967), never forms Z'Z, and leaves (I - QQ')A behind, whose cross-products are summed
// (docs/algorithm.md, eq. 2.3).
#pragma once

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "lmmfast/clusters.hpp"
#include "lmmfast/parallel.hpp"

namespace lmmfast {

// A column as the user holds it, and how it enters the model: (value - shift) * scale_inv.
struct Column {
    const double* data = nullptr;
    Index stride = 0;  // in doubles; 0 for a constant
    double shift = 0.0;
    double scale_inv = 1.0;

    double operator[](Index row) const { return (data[row * stride] - shift) * scale_inv; }
};

// A change of basis of neighbouring columns: column j of the model is sum_{k<=j} T(k, j) x_k, with T
// (size, size) row-major, upper triangular. Null: none.
struct ColumnMap {
    const double* T = nullptr;
    int size = 0;
};

// Rows of whole clusters. Cluster i owns rows order[ptr[i]] … order[ptr[i + 1] - 1], or the
// contiguous rows themselves where order is null. The response is taken about X beta (working
// residual), rows are multiplied by the square root of their weight.
struct Rows {
    std::vector<Column> X;  // p columns
    std::vector<Column> Z;  // q columns
    ColumnMap X_map, Z_map;
    Column y;
    const double* offset = nullptr;  // in the unit of y before its shift and scale
    Index offset_stride = 0;
    const Column* weights = nullptr;
    const double* beta = nullptr;         // (p,)
    const std::int64_t* ptr = nullptr;    // (n_clusters + 1,)
    const std::int64_t* order = nullptr;  // (n_rows,) or null
    Index n_clusters = 0;

    Index row(Index k) const { return order ? order[k] : k; }
};

// What compression leaves besides the clusters themselves.
struct CompressedSums {
    std::vector<double> gram;  // (p1, p1): sum of A_i'A_i
    std::vector<double> perp;  // (p1, p1): sum of A_i'(I - Q_i Q_i')A_i
    double log_weights = 0.0;  // sum of log w
    double min_weight = std::numeric_limits<double>::infinity();
    Index rank_Z = 0;  // sum of the ranks of the Z_i
};

namespace detail {

// Sum of A'A over rows that lie in lanes; as matrix products where there are many columns.
class CrossProducts {
  public:
    explicit CrossProducts(int p1)
        : p1_(p1),
          in_lanes_(use_products() ? 0 : static_cast<std::size_t>(p1) * p1, Lane::Zero()),
          products_(use_products() ? Eigen::MatrixXd::Zero(p1, p1) : Eigen::MatrixXd()) {}

    // Column j stands at A[j * stride] … A[j * stride + n - 1].
    void add(const Lane* A, Index stride, int n) {
        if (use_products()) {
            const Panel rows(reinterpret_cast<const double*>(A), p1_, n * lanes,
                             Eigen::OuterStride<>(stride * lanes));
            products_.selfadjointView<Eigen::Lower>().rankUpdate(rows);
            return;
        }
        for (int j = 0; j < p1_; ++j)
            for (int k = 0; k <= j; ++k) {
                Lane sum = in_lanes_[j * p1_ + k];
                for (int i = 0; i < n; ++i) sum += A[j * stride + i] * A[k * stride + i];
                in_lanes_[j * p1_ + k] = sum;
            }
    }
    void write(std::vector<double>& out) const {
        out.assign(static_cast<std::size_t>(p1_) * p1_, 0.0);
        for (int j = 0; j < p1_; ++j)
            for (int k = 0; k <= j; ++k)
                out[j * p1_ + k] = out[k * p1_ + j] =
                    use_products() ? products_(j, k) : in_lanes_[j * p1_ + k].sum();
    }

  private:
    using Panel = Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
                             Eigen::Unaligned, Eigen::OuterStride<>>;
    bool use_products() const { return p1_ > 12; }

    int p1_;
    std::vector<Lane> in_lanes_;
    Eigen::MatrixXd products_;
};

class BlockCompressor {
    static constexpr int tile_rows = 32;
    // A column of Z whose part beyond the earlier ones is smaller than this is taken to be dependent.
    static constexpr double rank_tolerance = 1e-13;

  public:
    BlockCompressor(const Layout& layout, const Rows& rows)
        : layout_(layout),
          rows_(rows),
          n_columns_(layout.q + layout.p1),
          tile_(static_cast<std::size_t>(n_columns_) * tile_rows, Lane::Zero()),
          perp_(layout.p1),
          projected_(layout.p1) {}

    // Clusters first … first+7 (those that exist) into `out` (n_fields, lanes).
    void compress(Index first, double* out) {
        std::array<Segment, lanes> small{};
        for (int lane = 0; lane < lanes; ++lane) {
            const Index i = first + lane;
            if (i >= rows_.n_clusters) continue;
            const Index begin = rows_.ptr[i], n_i = rows_.ptr[i + 1] - begin;
            if (n_i <= tile_rows) small[lane] = {begin, static_cast<int>(n_i)};
        }
        load(small, 0);
        reduce_tile(longest(small));
        store(out);
        for (int lane = 0; lane < lanes; ++lane) {
            const Index i = first + lane;
            if (i < rows_.n_clusters && rows_.ptr[i + 1] - rows_.ptr[i] > tile_rows)
                compress_large(rows_.ptr[i], rows_.ptr[i + 1], out + lane);
        }
    }

    void finish(CompressedSums& sums) const {
        perp_.write(sums.perp);
        projected_.write(sums.gram);
        for (std::size_t e = 0; e < sums.gram.size(); ++e) sums.gram[e] += sums.perp[e];
        sums.log_weights = log_weights_;
        sums.min_weight = min_weight_;
        sums.rank_Z = rank_Z_;
    }

  private:
    struct Segment {
        Index begin = 0;
        int n = 0;
    };
    static int longest(const std::array<Segment, lanes>& segments) {
        int n = 0;
        for (const auto& s : segments) n = std::max(n, s.n);
        return n;
    }
    Lane* column(int c) { return &tile_[static_cast<std::size_t>(c) * tile_rows]; }

    // Rows of the segments into tile rows from `offset` on; the rest of the tile to zero.
    void load(const std::array<Segment, lanes>& segments, int offset) {
        const int n = offset + longest(segments);
        const int q = layout_.q, p = layout_.p1 - 1;
        for (int c = 0; c < n_columns_; ++c)
            for (int r = offset; r < n; ++r) column(c)[r].setZero();
        for (int k = 0; k < q; ++k) gather(rows_.Z[k], segments, offset, column(k));
        for (int j = 0; j < p; ++j) gather(rows_.X[j], segments, offset, column(q + j));
        change_basis(rows_.Z_map, 0, offset, n);
        change_basis(rows_.X_map, q, offset, n);
        gather_y(segments, offset, column(q + p));
        for (int j = 0; j < p; ++j)
            if (rows_.beta[j] != 0.0)
                for (int r = offset; r < n; ++r) column(q + p)[r] -= column(q + j)[r] * rows_.beta[j];
        if (rows_.weights) weigh(segments, offset, n);
    }
    void gather(const Column& from, const std::array<Segment, lanes>& segments, int offset, Lane* to) {
        for (int lane = 0; lane < lanes; ++lane)
            for (int r = 0; r < segments[lane].n; ++r)
                to[offset + r][lane] = from[rows_.row(segments[lane].begin + r)];
    }
    // From the last column to the first, so that the earlier ones are still as they were.
    void change_basis(const ColumnMap& map, int first, int begin, int end) {
        if (!map.T) return;
        for (int j = map.size; j-- > 0;) {
            for (int r = begin; r < end; ++r) column(first + j)[r] *= map.T[j * map.size + j];
            for (int k = 0; k < j; ++k) {
                const double t = map.T[k * map.size + j];
                if (t == 0.0) continue;
                for (int r = begin; r < end; ++r) column(first + j)[r] += column(first + k)[r] * t;
            }
        }
    }
    void gather_y(const std::array<Segment, lanes>& segments, int offset, Lane* to) {
        if (!rows_.offset) return gather(rows_.y, segments, offset, to);
        for (int lane = 0; lane < lanes; ++lane)
            for (int r = 0; r < segments[lane].n; ++r) {
                const Index row = rows_.row(segments[lane].begin + r);
                const double y = rows_.y.data[row * rows_.y.stride] - rows_.offset[row * rows_.offset_stride];
                to[offset + r][lane] = (y - rows_.y.shift) * rows_.y.scale_inv;
            }
    }
    void weigh(const std::array<Segment, lanes>& segments, int offset, int n) {
        std::array<Lane, tile_rows> root;
        root.fill(Lane::Zero());
        for (int lane = 0; lane < lanes; ++lane)
            for (int r = 0; r < segments[lane].n; ++r) {
                const double w = (*rows_.weights)[rows_.row(segments[lane].begin + r)];
                min_weight_ = w < min_weight_ ? w : min_weight_;
                log_weights_ += std::log(w);
                root[offset + r][lane] = std::sqrt(w);
            }
        for (int c = 0; c < n_columns_; ++c)
            for (int r = offset; r < n; ++r) column(c)[r] *= root[r];
    }

    // Gram-Schmidt on tile rows 0 … n-1; R and Q'A end up in fields_, the rest is summed into perp.
    void reduce_tile(int n) {
        const int q = layout_.q;
        fields_.assign(static_cast<std::size_t>(layout_.n_fields()), Lane::Zero());
        if (n == 0) return;
        std::array<Lane, max_q> norm2;
        for (int k = 0; k < q; ++k) norm2[k] = dot(column(k), column(k), n);
        for (int k = 0; k < q; ++k) {
            Lane* z = column(k);
            const Lane r2 = dot(z, z, n);
            const Eigen::Array<bool, lanes, 1> independent =
                r2 > norm2[k] * (rank_tolerance * rank_tolerance);
            const Lane r = independent.select(r2.sqrt(), Lane::Zero());
            const Lane r_inv = independent.select(r2.sqrt().inverse(), Lane::Zero());
            fields_[layout_.r(k, k)] = r;
            for (int i = 0; i < n; ++i) z[i] *= r_inv;
            for (int c = k + 1; c < n_columns_; ++c) {
                Lane* a = column(c);
                const Lane s = dot(z, a, n);
                for (int i = 0; i < n; ++i) a[i] -= z[i] * s;
                fields_[c < q ? layout_.r(k, c) : layout_.qa(k, c - q)] = s;
            }
        }
        perp_.add(column(q), tile_rows, n);
    }
    static Lane dot(const Lane* a, const Lane* b, int n) {
        Lane sum = a[0] * b[0];
        for (int i = 1; i < n; ++i) sum += a[i] * b[i];
        return sum;
    }

    void store(double* out) {
        for (int f = 0; f < layout_.n_fields(); ++f) LaneMap(out + f * lanes) = fields_[f];
        for (int k = 0; k < layout_.q; ++k) projected_.add(&fields_[layout_.qa(k, 0)], 1, 1);
        for (int k = 0; k < layout_.q; ++k) rank_Z_ += (fields_[layout_.r(k, k)] > 0.0).count();
    }

    // A cluster longer than the tile: its rows go through the lanes in eight strands, each strand
    // tile after tile with its R and Q'A carried on top; then the eight are stacked and reduced.
    void compress_large(Index begin, Index end, double* out_lane) {
        const int q = layout_.q, room = tile_rows - q;
        const Index n = end - begin;
        std::array<Index, lanes + 1> strand;
        for (int lane = 0; lane <= lanes; ++lane) strand[lane] = begin + n * lane / lanes;
        bool first = true;
        for (Index done = 0; done < strand[lanes] - strand[lanes - 1];) {
            std::array<Segment, lanes> segments{};
            const int carried = first ? 0 : q, step = first ? tile_rows : room;
            for (int lane = 0; lane < lanes; ++lane) {
                const Index left = strand[lane + 1] - strand[lane] - done;
                segments[lane] = {strand[lane] + done, static_cast<int>(std::clamp<Index>(left, 0, step))};
            }
            if (carried) carry_strands();
            load(segments, carried);
            reduce_tile(carried + longest(segments));
            done += step;
            first = false;
        }
        merge_strands();
        for (int f = 0; f < layout_.n_fields(); ++f) out_lane[f * lanes] = fields_[f][0];
        for (int k = 0; k < q; ++k) projected_.add(&fields_[layout_.qa(k, 0)], 1, 1);
        for (int k = 0; k < q; ++k) rank_Z_ += fields_[layout_.r(k, k)][0] > 0.0;
    }
    Lane field(int k, int c) const {  // entry (k, c) of [R Q'A]
        if (c >= layout_.q) return fields_[layout_.qa(k, c - layout_.q)];
        return c >= k ? fields_[layout_.r(k, c)] : Lane(Lane::Zero());
    }
    void carry_strands() {
        for (int k = 0; k < layout_.q; ++k)
            for (int c = 0; c < n_columns_; ++c) column(c)[k] = field(k, c);
    }
    // Reduce the eight [R Q'A] to one in lane 0: the result so far on top, the next strand below.
    void merge_strands() {
        const int q = layout_.q;
        strands_.clear();
        for (int k = 0; k < q; ++k)
            for (int c = 0; c < n_columns_; ++c) strands_.push_back(field(k, c));
        for (int lane = 1; lane < lanes; ++lane) {
            for (int k = 0; k < q; ++k)
                for (int c = 0; c < n_columns_; ++c) {
                    const Lane top = field(k, c), below = strands_[k * n_columns_ + c];
                    column(c)[k] = Lane::Zero();
                    column(c)[q + k] = Lane::Zero();
                    column(c)[k][0] = top[0];
                    column(c)[q + k][0] = below[lane];
                }
            reduce_tile(2 * q);
        }
    }

    Layout layout_;
    const Rows& rows_;
    int n_columns_;
    std::vector<Lane> tile_;    // (q + p1, tile_rows): columns of [Z A], a row of eight lanes each
    std::vector<Lane> fields_;  // (n_fields,)
    CrossProducts perp_, projected_;
    std::vector<Lane> strands_;  // (q, q + p1)
    double log_weights_ = 0.0, min_weight_ = std::numeric_limits<double>::infinity();
    Index rank_Z_ = 0;
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
    }
    return total;
}

}  // namespace lmmfast
