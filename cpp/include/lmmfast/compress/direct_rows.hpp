// Rows laid side by side straight from where the user holds them: what staging.hpp and tile.hpp do, in one
// step, for columns of float64 that need nothing but their shift and scale.
//
// Whatever is taken for granted meanwhile (a constant column, a column of X that is one of Z) is compared
// on the way; a block of which it does not hold is left to be staged.
#pragma once

#include <array>
#include <cmath>
#include <vector>

#include "lmmfast/base/packs.hpp"
#include "lmmfast/compress/tile.hpp"
#include "lmmfast/rows/rows.hpp"
#include "lmmfast/rows/same_bits.hpp"
#include "lmmfast/rows/side_by_side.hpp"

namespace lmmfast::detail {

class DirectRows {
  public:
    // Rows behind a block that may be read too.
    static constexpr int beyond = Tile::max_rows + lanes;

    // The tile has a column beyond those of [Z X y], for what nobody wants.
    DirectRows(const Rows& rows, int spare_slot) : rows_(rows), spare_slot_(spare_slot) {}

    // Which columns of [Z X y] go through the tile, and the column of Z that a column of X is (-1: none).
    // Afterwards `possible` says whether blocks can be loaded.
    void plan(const std::vector<int>& active, const std::vector<int>& same_as) {
        possible_ = false;
        if (rows_.order || rows_.weights || rows_.offset || rows_.Z_map.T || rows_.X_map.T) return;
        const int q = static_cast<int>(rows_.Z.size()), p = static_cast<int>(rows_.X.size());
        std::vector<int> slot(same_as.size(), spare_slot_);
        for (std::size_t a = 0; a < active.size(); ++a) slot[active[a]] = static_cast<int>(a);
        residual_slot_ = slot[q + p];
        pairs_.clear();
        std::vector<Wanted> wanted;
        for (int j = 0; j < p; ++j) {
            const int z = same_as[q + j];
            if (z >= 0 && !read_for_both(rows_.X[j], rows_.Z[z])) return;
            int& x_slot = slot[z < 0 ? q + j : z];
            wanted.push_back({rows_.X[j], -rows_.beta[j], x_slot});
            x_slot = spare_slot_;
        }
        for (int k = 0; k < q; ++k)
            if (slot[k] != spare_slot_) wanted.push_back({rows_.Z[k], 0.0, slot[k]});
        possible_ = set_reads(wanted);
    }
    bool possible() const { return possible_; }

    // Rows first … last - 1, the clusters of one block, into those columns of the tile that are not constant.
    // False, and the tile is void, where something taken for granted is not so.
    bool load(Index first, Index last, const Tile::Segments& segments, Tile& tile) const {
        if (!pairs_.same(first, last)) return false;
        switch (tile.n_rows()) {
            case 4:
                return load_rows<4>(first, segments, tile);
            case 8:
                return load_rows<8>(first, segments, tile);
            default:
                return load_rows<0>(first, segments, tile);
        }
    }

  private:
    static constexpr Index word = sizeof(double);

    struct Wanted {
        Column column;
        double minus_beta;
        int slot;
    };
    // Neighbouring columns and what becomes of each. Only the first may be constant: then it is but compared.
    struct Read {
        const double* data;
        Index stride;  // in doubles
        int width = 0;
        bool begins_constant;
        double expected;
        std::array<int, SideBySide::max_width> slot;  // the column of the tile
        std::array<double, SideBySide::max_width> shift, scale_inv, minus_beta;

        explicit Read(const Column& leftmost)
            : data(static_cast<const double*>(leftmost.data)),
              stride(leftmost.stride / word),
              begins_constant(is_constant(leftmost)),
              expected(leftmost.expected) {}
        void add(const Wanted& w) {
            slot[width] = w.slot;
            shift[width] = w.column.shift;
            scale_inv[width] = w.column.scale_inv;
            minus_beta[width++] = w.minus_beta;
        }
    };

    static bool is_readable(const Column& c) {
        return c.type == Type::f64 && c.stride > 0 && c.stride % word == 0;
    }
    static bool is_constant(const Column& c) { return c.stride == 0 || !std::isnan(c.expected); }
    static double value_of(const Column& constant) {
        if (constant.stride != 0) return (constant.expected - constant.shift) * constant.scale_inv;
        double value;
        constant.read(0, nullptr, 1, &value);
        return value;
    }
    // Lets x be read for z too, whose numbers have been the same so far; their bits are compared from now on.
    // False where the same bits would not be the same numbers.
    bool read_for_both(const Column& x, const Column& z) {
        if (is_constant(x) != is_constant(z)) return false;
        if (is_constant(x) && value_of(x) != value_of(z)) return false;
        if (z.stride == 0) return true;
        if (x.shift != z.shift || x.scale_inv != z.scale_inv || !is_readable(x) || !is_readable(z))
            return false;
        if (x.data != z.data || x.stride != z.stride) pairs_.add(x, z);
        return true;
    }
    bool set_reads(const std::vector<Wanted>& wanted) {
        reads_.clear();
        constant_ = 0.0;
        std::vector<Column> columns;
        std::vector<const Wanted*> of_column;
        for (const Wanted& w : wanted) {
            if (is_constant(w.column)) constant_ += w.minus_beta * value_of(w.column);
            if (w.column.stride == 0) continue;
            if (!is_readable(w.column)) return false;
            columns.push_back(w.column);
            of_column.push_back(&w);
        }
        for (const SideBySide& together : find_side_by_side(columns)) {
            Read& read = reads_.emplace_back(columns[together.columns[0]]);
            for (int k = 0; k < together.width; ++k) {
                if (k > 0 && is_constant(columns[together.columns[k]])) return false;
                read.add(*of_column[together.columns[k]]);
            }
        }
        if (rows_.y.stride == 0) constant_ += value_of(rows_.y);
        return rows_.y.stride == 0 || is_readable(rows_.y);
    }

    template <int N>
    LMMFAST_FLATTEN bool load_rows(Index first, const Tile::Segments& segments, Tile& tile) const {
        Pack::Packet different = Pack::zero().v;
        for (int g = 0; g < packs_per_block; ++g) {
            Pack registers[N > 0 ? N : 1];
            Pack* residual = N > 0 ? registers : tile.column(residual_slot_, g);
            load_response<N>(first, segments, g, tile, residual);
            for (const Read& read : reads_) {
                if (read.stride == 1)
                    load_column<N>(read, first, g, tile, residual, different);
                else if (read.width == 4)
                    load_table<N, 4>(read, first, segments, g, tile, residual, different);
                else if (read.width == 2)
                    load_table<N, 2>(read, first, segments, g, tile, residual, different);
                else
                    load_table<N, 1>(read, first, segments, g, tile, residual, different);
            }
            Pack* to = tile.column(residual_slot_, g);
            for_rows<N>(tile.n_rows(), [&](auto r) { to[r] = tile.masked(g, r, residual[r]); });
        }
        return Pack{different}.is_zero();
    }
    template <int N>
    void load_response(Index first, const Tile::Segments& segments, int g, const Tile& tile, Pack* y) const {
        if (rows_.y.stride == 0) {
            for_rows<N>(tile.n_rows(), [&](auto r) { y[r] = Pack::all(constant_); });
            return;
        }
        const Read response(rows_.y);
        if (response.stride == 1) {
            tile.transpose<N>(g, response.data + first, y);
        } else {
            const TableRows rows(response, first, segments, g);
            for_rows<N>(tile.n_rows(), [&](auto r) {
                Pack x[SideBySide::max_width];
                rows.template get<1>(r, x);
                y[r] = x[0];
            });
        }
        const Pack shift = Pack::all(rows_.y.shift), scale_inv = Pack::all(rows_.y.scale_inv),
                   constant = Pack::all(constant_);
        for_rows<N>(tile.n_rows(), [&](auto r) { y[r] = multiply_add(y[r] - shift, scale_inv, constant); });
    }
    // A column whose rows lie behind one another
    template <int N>
    void load_column(const Read& read, Index first, int g, Tile& tile, Pack* residual,
                     Pack::Packet& different) const {
        Pack x[N > 0 ? N : Tile::max_rows];
        tile.transpose<N>(g, read.data + first, x);
        if (read.begins_constant)
            take<N, 1, true>(read, g, tile, residual, different, [&](auto r) { return x + r; });
        else
            take<N, 1, false>(read, g, tile, residual, different, [&](auto r) { return x + r; });
    }
    // Width columns of a table, row by row
    template <int N, int Width>
    void load_table(const Read& read, Index first, const Tile::Segments& segments, int g, Tile& tile,
                    Pack* residual, Pack::Packet& different) const {
        const TableRows rows(read, first, segments, g);
        Pack x[SideBySide::max_width];
        const auto get = [&](auto r) {
            rows.template get<Width>(r, x);
            return x;
        };
        if (read.begins_constant)
            take<N, Width, true>(read, g, tile, residual, different, get);
        else
            take<N, Width, false>(read, g, tile, residual, different, get);
    }
    // What becomes of the rows of Width columns; get(r) is row r of them.
    template <int N, int Width, bool BeginsConstant, class Get>
    void take(const Read& read, int g, Tile& tile, Pack* residual, Pack::Packet& different,
              const Get& get) const {
        constexpr int begin = BeginsConstant ? 1 : 0, n = Width - begin;
        const Pack expected = Pack::all(read.expected);
        Pack shift[n > 0 ? n : 1], scale_inv[n > 0 ? n : 1], minus_beta[n > 0 ? n : 1];
        Pack* to[n > 0 ? n : 1];
        unroll<n>([&](auto k) {
            shift[k] = Pack::all(read.shift[begin + k]);
            scale_inv[k] = Pack::all(read.scale_inv[begin + k]);
            minus_beta[k] = Pack::all(read.minus_beta[begin + k]);
            to[k] = tile.column(read.slot[begin + k], g);
        });
        for_rows<N>(tile.n_rows(), [&](auto r) {
            using namespace Eigen::internal;
            const Pack* x = get(r);
            if constexpr (BeginsConstant) different = por(different, pxor(x[0].v, expected.v));
            unroll<n>([&](auto k) {
                const Pack value = (x[begin + k] - shift[k]) * scale_inv[k];
                residual[r] = multiply_add(value, minus_beta[k], residual[r]);
                to[k][r] = tile.masked(g, r, value);
            });
        });
    }
    // Rows of a pack of clusters in a table
    struct TableRows {
        const double* data;
        Index stride;
        std::array<Index, Pack::size> from;

        TableRows(const Read& read, Index first, const Tile::Segments& segments, int g)
            : data(read.data + first * read.stride), stride(read.stride) {
            for (int k = 0; k < Pack::size; ++k) from[k] = segments.begin[g * Pack::size + k] * stride;
        }
        // Row r of every cluster: `Width` columns, or more where a register holds more
        template <int Width>
        void get(int r, Pack* x) const {
            load_transposed(data + r * stride, from.data(), Width, x);
        }
    };

    const Rows& rows_;
    int spare_slot_;
    bool possible_ = false;
    std::vector<Read> reads_;
    SameBits pairs_;
    int residual_slot_ = 0;
    double constant_ = 0.0;  // what columns of one number give the residual
};

}  // namespace lmmfast::detail
