// Clusters side by side: the rows of eight of them, staged one after the other, transposed into packs.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "lmmfast/base/packs.hpp"

namespace lmmfast::detail {

// call(r) for N rows, or for n of them if N is zero
template <int N, class Call>
void for_rows(int n, const Call& call) {
    if constexpr (N > 0)
        unroll<N>(call);
    else
        for (int r = 0; r < n; ++r) call(r);
}

// [Z A] of eight clusters: column c of pack g of clusters holds its rows one after the other, at
// (c * packs_per_block + g) * n_rows. Clusters with fewer rows end in zeros.
class Tile {
  public:
    static constexpr int max_rows = 32;
    // Rows of each cluster among the staged ones.
    struct Segments {
        std::array<int, lanes> begin{}, size{};

        // From where each begins, and the last ends, counted from `origin`
        template <class Row>
        static Segments behind_one_another(const Row* begins, Row origin) {
            Segments segments;
            for (int lane = 0; lane < lanes; ++lane) {
                segments.begin[lane] = static_cast<int>(begins[lane] - origin);
                segments.size[lane] = static_cast<int>(begins[lane + 1] - begins[lane]);
            }
            return segments;
        }

        int longest() const {
            int n = 0;
            for (const int s : size) n = std::max(n, s);
            return n;
        }
    };

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

    // Clusters from their first rows on. Numbers of rows that the compiler knows keep columns in registers.
    void begin(const Segments& segments) {
        const int n = segments.longest();
        set_rows(n <= 4 ? 4 : n <= 8 ? 8 : n);
        set_segments(segments, 0);
    }
    // Which rows of which cluster there are, from row `first` on. Staged values may be read up to a pack
    // beyond the last of them.
    void set_segments(const Segments& segments, int first) {
        first_ = first;
        const int n = n_rows_ - first;
        for (int r = 0; r < n; r += Pack::size)
            for (int lane = 0; lane < lanes; ++lane)
                from_[r / Pack::size * lanes + lane] = r < segments.size[lane] ? segments.begin[lane] + r : 0;
        std::array<double, lanes> counts;
        for (int lane = 0; lane < lanes; ++lane) counts[lane] = segments.size[lane];
        for (int g = 0; g < packs_per_block; ++g) {
            const Pack count = Pack::load_unaligned(counts.data() + g * Pack::size);
            Pack* mask = &masks_[g * max_rows];
            for (int r = 0; r < n; ++r) mask[r].v = Eigen::internal::pcmp_lt(Pack::all(r).v, count.v);
        }
    }
    // Column c from staged values: rows `first` … n_rows - 1, which are N if that is not zero.
    template <int N>
    void load(int c, const double* staged) {
        for (int g = 0; g < packs_per_block; ++g) fetch<N>(g, staged, column(c, g) + first_);
    }
    // The same of pack g alone, to anywhere.
    template <int N>
    void fetch(int g, const double* staged, Pack* to) const {
        transpose<N>(g, staged, to);
        for_rows<N>(n_rows_ - first_, [&](auto r) { to[r] = masked(g, r, to[r]); });
    }
    // The same with whatever follows the rows of a shorter cluster.
    template <int N>
    void transpose(int g, const double* staged, Pack* to) const {
        const int n = N > 0 ? N : n_rows_ - first_;
        for (int r = 0; r < n; r += Pack::size) {
            const int* from = &from_[r / Pack::size * lanes + g * Pack::size];
            Pack square[Pack::size];  // rows beyond the last come too
            const int used = N > 0 && N % Pack::size == 0 ? Pack::size : std::min(Pack::size, n - r);
            load_transposed(staged, from, used, square);
            for (int k = 0; k < used; ++k) to[r + k] = square[k];
        }
    }
    // The same of a column that has one number in all rows.
    template <int N>
    void fetch_constant(int g, double value, Pack* to) const {
        const Pack all = Pack::all(value);
        for_rows<N>(n_rows_ - first_, [&](auto r) { to[r] = masked(g, r, all); });
    }
    // Row `first` + r of the clusters that have it, zeros of the others.
    Pack masked(int g, int r, Pack row) const {
        return {Eigen::internal::pand(masks_[g * max_rows + r].v, row.v)};
    }

  private:
    std::vector<Pack> values_;
    int n_rows_ = 0, first_ = 0;
    std::array<int, lanes * max_rows> from_;  // where a register's worth of rows of a lane begins
    std::array<Pack, packs_per_block * max_rows> masks_;
};

}  // namespace lmmfast::detail
