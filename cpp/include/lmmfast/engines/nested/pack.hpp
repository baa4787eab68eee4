// Rows -> innermost units of nested factors: R and Q'A of each, what lies beyond by the unit around them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "lmmfast/base/parallel.hpp"
#include "lmmfast/compress/compress.hpp"
#include "lmmfast/engines/nested/centre.hpp"

namespace lmmfast {

// Rows of innermost units first_unit … first_unit + n_units - 1, in the order of the tree.
struct NestedRows {
    const double* A = nullptr;        // (n, p1)
    const double* Z = nullptr;        // (n, q)
    const double* weights = nullptr;  // (n,) or null
    Index first_unit = 0, n_units = 0;
    const std::int64_t* ptr = nullptr;  // (m + 1,) rows of each innermost unit, among all rows

    Index first_row() const { return ptr[first_unit]; }
    Index n() const { return ptr[first_unit + n_units] - first_row(); }
};

// What packing fills; the tree points to the same arrays.
struct NestedTarget {
    double* blocks = nullptr;     // (n_blocks, n_fields, 8)
    std::vector<double*> centre;  // by outer level, (m, q, P - q)
    double* perp = nullptr;       // (m, P (P + 1) / 2) of the lowest outer level
};

namespace detail {

// Columns [Z_{L-1} … Z_0 X r] of some rows, one after the other.
class NestedStage {
  public:
    NestedStage(const NestedTree& tree, const NestedRows& rows) : rows_(rows) {
        const int q = tree.q();
        for (int l = tree.depth(); l-- > 0;)
            for (const int c : tree.levels[l].columns) columns_.push_back({rows.Z + c, q});
        for (int j = 0; j < tree.p1; ++j) columns_.push_back({rows.A + j, tree.p1});
    }

    int n_columns() const { return static_cast<int>(columns_.size()); }
    int n() const { return n_; }
    double* column(int c) { return values_.data() + static_cast<std::size_t>(c) * stride_; }

    // Columns from `from` on of rows begin … end - 1, numbered within the lot, times the roots of weights.
    void read(Index begin, Index end, int from) {
        n_ = static_cast<int>(end - begin);
        if (n_ + lanes > stride_) {
            stride_ = n_ + lanes;
            values_.assign(static_cast<std::size_t>(n_columns()) * stride_, 0.0);
            root_.resize(static_cast<std::size_t>(n_));
        }
        if (rows_.weights)
            for (int i = 0; i < n_; ++i) root_[i] = std::sqrt(rows_.weights[begin + i]);
        for (int c = from; c < n_columns(); ++c) {
            const double* x = columns_[c].data + begin * columns_[c].stride;
            double* to = column(c);
            for (int i = 0; i < n_; ++i) to[i] = x[i * columns_[c].stride];
            if (rows_.weights)
                for (int i = 0; i < n_; ++i) to[i] *= root_[i];
        }
    }

  private:
    struct Source {
        const double* data;
        Index stride;
    };
    const NestedRows& rows_;
    std::vector<Source> columns_;
    int n_ = 0, stride_ = 0;
    std::vector<double> values_, root_;
};

inline double dot(const double* x, const double* y, int n) {
    return Eigen::Map<const Eigen::VectorXd>(x, n).dot(Eigen::Map<const Eigen::VectorXd>(y, n));
}

// Units of staged rows -> R and Q'A by modified Gram-Schmidt, and the products of what is left.
class NestedCompressor {
    // A column of Z whose part beyond the earlier ones is smaller than this is taken to be dependent.
    static constexpr double rank_tolerance = 1e-13;

  public:
    explicit NestedCompressor(const Layout& layout)
        : layout_(layout),
          tile_(layout.q + layout.p1),
          perp_(static_cast<std::size_t>(n_pairs(layout.p1)), Pack::zero()),
          perp_large_(perp_.size(), 0.0) {}

    // Up to eight units with rows ptr[0] … ptr[n] among the staged ones, which are used up.
    void compress(NestedStage& stage, const std::int64_t* ptr, Index first_row, Index n, double* out) {
        Tile::Segments segments;
        for (Index i = 0; i < n; ++i) {
            const auto size = static_cast<int>(ptr[i + 1] - ptr[i]);
            if (size > Tile::max_rows) continue;
            segments.begin[i] = static_cast<int>(ptr[i] - first_row);
            segments.size[i] = size;
        }
        tile_.begin(segments);
        if (tile_.n_rows() == 4)
            compress_tile<4>(stage, out);
        else if (tile_.n_rows() == 8)
            compress_tile<8>(stage, out);
        else
            compress_tile<0>(stage, out);
        for (Index i = 0; i < n; ++i)
            if (ptr[i + 1] - ptr[i] > Tile::max_rows)
                compress_large(stage, static_cast<int>(ptr[i] - first_row),
                               static_cast<int>(ptr[i + 1] - ptr[i]), out + i);
    }
    // The sum of products so far, (P (P + 1) / 2,); starts the next one.
    void take_perp(double* out) {
        for (std::size_t e = 0; e < perp_.size(); ++e) {
            out[e] = perp_[e].sum() + perp_large_[e];
            perp_[e] = Pack::zero();
            perp_large_[e] = 0.0;
        }
    }

  private:
    int field(int k, int c) const { return c < layout_.q ? layout_.r(k, c) : layout_.qa(k, c - layout_.q); }

    // Sums run from the first row to the last, whatever N: the same rows give the same bits.
    template <int N>
    static Pack dot_rows(const Pack* a, const Pack* b, int n) {
        Pack sum = a[0] * b[0];
        for (int i = 1; i < (N > 0 ? N : n); ++i) sum = multiply_add(a[i], b[i], sum);
        return sum;
    }
    template <int N>
    void compress_tile(NestedStage& stage, double* out) {
        for (int c = 0; c < layout_.q + layout_.p1; ++c) tile_.load<N>(c, stage.column(c));
        for (int g = 0; g < packs_per_block; ++g) reduce_pack<N>(g, out + g * Pack::size);
    }
    template <int N>
    void reduce_pack(int g, double* out) {
        const int q = layout_.q, n = N > 0 ? N : tile_.n_rows();
        for (int c = 0; c < q + layout_.p1; ++c) {
            Pack* a = tile_.column(c, g);
            const Pack norm2 = c < q ? dot_rows<N>(a, a, n) : Pack::zero();
            for (int k = 0; k < std::min(c, q); ++k) {
                const Pack* z = tile_.column(k, g);
                const Pack s = dot_rows<N>(z, a, n), minus = -s;
                for (int i = 0; i < n; ++i) a[i] = multiply_add(z[i], minus, a[i]);
                s.store(out + field(k, c) * lanes);
            }
            if (c >= q) continue;
            const Pack r2 = c == 0 ? norm2 : dot_rows<N>(a, a, n), root = r2.sqrt();
            const Pack independent{
                Eigen::internal::pcmp_lt((norm2 * (rank_tolerance * rank_tolerance)).v, r2.v)};
            both(independent, root).store(out + field(c, c) * lanes);
            const Pack inverse = both(independent, root.inverse());
            for (int i = 0; i < n; ++i) a[i] *= inverse;
        }
        Pack* sum = perp_.data();
        for (int i = q; i < q + layout_.p1; ++i)
            for (int j = i; j < q + layout_.p1; ++j, ++sum)
                *sum += dot_rows<N>(tile_.column(i, g), tile_.column(j, g), n);
    }
    static Pack both(Pack mask, Pack a) { return {Eigen::internal::pand(mask.v, a.v)}; }

    // A unit longer than the tile, alone in its lane.
    void compress_large(NestedStage& stage, int begin, int n, double* out) {
        const int q = layout_.q;
        for (int c = 0; c < q + layout_.p1; ++c) {
            Eigen::Map<Eigen::VectorXd> a(stage.column(c) + begin, n);
            const double norm = c < q ? a.norm() : 0.0;
            for (int k = 0; k < std::min(c, q); ++k) {
                const Eigen::Map<const Eigen::VectorXd> z(stage.column(k) + begin, n);
                const double s = z.dot(a);
                a -= s * z;
                out[field(k, c) * lanes] = s;
            }
            if (c >= q) continue;
            const double r = a.norm(), independent = r > rank_tolerance * norm ? 1.0 : 0.0;
            out[field(c, c) * lanes] = independent * r;
            a *= independent > 0 ? 1.0 / r : 0.0;
        }
        double* sum = perp_large_.data();
        for (int i = q; i < q + layout_.p1; ++i)
            for (int j = i; j < q + layout_.p1; ++j, ++sum)
                *sum += dot(stage.column(i) + begin, stage.column(j) + begin, n);
    }

    Layout layout_;
    Tile tile_;
    std::vector<Pack> perp_;
    std::vector<double> perp_large_;
};

class NestedPacker {
    static constexpr Index segment_rows = 1024, task_rows = 8192;

  public:
    NestedPacker(const NestedTree& tree, const NestedRows& rows, const NestedTarget& target)
        : tree_(tree), rows_(rows), target_(target), layout_(tree.innermost()), o_(layout_.p1 - tree.p1) {
        set_segments();
    }

    void pack(int n_threads, Interrupt& interrupt) {
        std::vector<double> products(segments_.size() * o_ * layout_.p1);
        for_segments(n_threads, interrupt, [&](Index, NestedStage& stage, NestedCompressor&) {
            return [&](Index s) { sum_products(stage, s, &products[s * o_ * layout_.p1]); };
        });
        set_centres(tree_, segments_, products, target_.centre, rows_.first_unit,
                    [&](int l, Index i) { return first_innermost(l, i); });
        const int size = n_pairs(layout_.p1);
        std::vector<double> perp(segments_.size() * size);
        for_segments(n_threads, interrupt, [&](Index, NestedStage& stage, NestedCompressor& compressor) {
            return [&](Index s) { compress(stage, compressor, s, &perp[s * size]); };
        });
        for (std::size_t s = 0; s < segments_.size(); ++s)
            for (int e = 0; e < size; ++e) target_.perp[segments_[s].unit * size + e] += perp[s * size + e];
    }

  private:
    const NestedLevel& around() const { return tree_.levels[tree_.depth() - 2]; }
    Index first_innermost(int l, Index i) const {
        for (; l + 1 < tree_.depth(); ++l) i = tree_.levels[l].first[i];
        return i;
    }
    Index row(Index unit) const { return rows_.ptr[unit] - rows_.first_row(); }

    void set_segments() {
        const std::int64_t* first = around().first;
        const Index end = rows_.first_unit + rows_.n_units;
        Index unit = std::upper_bound(first, first + around().m, rows_.first_unit) - first - 1;
        for (Index i = rows_.first_unit; i < end; ++unit) {
            const Index last = std::min<Index>(end, first[unit + 1]);
            while (i < last) {
                Index stop = i;
                while (stop < last && row(stop) - row(i) < segment_rows) stop = std::min(stop + lanes, last);
                segments_.push_back({unit, i, stop});
                i = stop;
            }
        }
        task_begin_.push_back(0);
        for (std::size_t s = 0; s < segments_.size(); ++s)
            if (row(segments_[s].end) - row(segments_[task_begin_.back()].begin) >= task_rows ||
                s + 1 == segments_.size())
                task_begin_.push_back(static_cast<Index>(s + 1));
    }
    template <class Prepare>
    void for_segments(int n_threads, Interrupt& interrupt, const Prepare& prepare) {
        parallel_for(static_cast<Index>(task_begin_.size()) - 1, n_threads, interrupt, [&](Index task) {
            NestedStage stage(tree_, rows_);
            NestedCompressor compressor(layout_);
            const auto work = prepare(task, stage, compressor);
            for (Index s = task_begin_[task]; s < task_begin_[task + 1]; ++s) work(s);
        });
    }

    // Z'A of the outer columns, (o, P).
    void sum_products(NestedStage& stage, Index s, double* out) const {
        const int q = layout_.q;
        stage.read(row(segments_[s].begin), row(segments_[s].end), q);
        for (int i = 0; i < o_; ++i)
            for (int j = i; j < layout_.p1; ++j)
                out[i * layout_.p1 + j] = dot(stage.column(q + i), stage.column(q + j), stage.n());
        for (int i = 0; i < o_; ++i)
            for (int j = 0; j < i; ++j) out[i * layout_.p1 + j] = out[j * layout_.p1 + i];
    }
    void compress(NestedStage& stage, NestedCompressor& compressor, Index s, double* perp) const {
        const auto [unit, begin, end] = segments_[s];
        stage.read(row(begin), row(end), 0);
        centre(stage, begin);
        const Index first = around().first[unit];
        for (Index i = begin; i < end; i += lanes) {
            const Index block = tree_.first_block[unit] + (i - first) / lanes;
            compressor.compress(stage, rows_.ptr + i, rows_.ptr[begin], std::min<Index>(lanes, end - i),
                                target_.blocks + block * layout_.n_fields() * lanes);
        }
        compressor.take_perp(perp);
    }
    // Columns about those of Z of the units around innermost unit i, from the outermost inwards.
    void centre(NestedStage& stage, Index i) const {
        const int columns = stage.n_columns();
        for (int l = 0; l + 1 < tree_.depth(); ++l) {
            const int q = tree_.levels[l].q(), n = tree_.n_outer_columns(l) + tree_.p1;
            const double* C0 = target_.centre[l] + unit_around(l, i) * q * n;
            for (int j = 0; j < n; ++j)
                for (int a = 0; a < q; ++a) {
                    const double c = C0[a * n + j];
                    const double* z = stage.column(columns - n - q + a);
                    double* x = stage.column(columns - n + j);
                    if (c != 0.0)
                        for (int k = 0; k < stage.n(); ++k) x[k] -= z[k] * c;
                }
        }
    }
    Index unit_around(int level, Index i) const {
        for (int l = tree_.depth() - 1; l-- > level;) {
            const std::int64_t* first = tree_.levels[l].first;
            i = std::upper_bound(first, first + tree_.levels[l].m, i) - first - 1;
        }
        return i;
    }

    const NestedTree& tree_;
    const NestedRows& rows_;
    const NestedTarget& target_;
    Layout layout_;
    int o_;
    std::vector<NestedSegment> segments_;
    std::vector<Index> task_begin_;
};

}  // namespace detail

// Packs a lot of rows. A lot ends with a whole unit of the lowest outer level or with a whole block in it.
inline void pack_nested(const NestedTree& tree, const NestedRows& rows, const NestedTarget& target,
                        int n_threads, Interrupt& interrupt) {
    if (rows.n_units == 0) return;
    detail::NestedPacker(tree, rows, target).pack(n_threads, interrupt);
}

}  // namespace lmmfast
