// Some rows in the working basis, column by column: everything that is done to rows one by one, before
// clusters are laid side by side.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lmmfast/base/packs.hpp"
#include "lmmfast/rows/rows.hpp"
#include "lmmfast/rows/side_by_side.hpp"

namespace lmmfast {

class StagedRows {
  public:
    // Room for `capacity` rows of [Z X y], and beyond the last one for a whole load of a register.
    StagedRows(const Rows& rows, int capacity)
        : rows_(rows),
          stride_((capacity + 2 * lanes - 1) / lanes * lanes),
          capacity_(capacity),
          q_(static_cast<int>(rows.Z.size())),
          p_(static_cast<int>(rows.X.size())),
          values_(static_cast<std::size_t>(n_columns() + 1) * stride_, 0.0) {
        find_constants();
        find_sources();
    }

    int n_columns() const { return q_ + p_ + 1; }
    int capacity() const { return capacity_; }
    const double* column(int c) const {
        return values_.data() + static_cast<std::size_t>(place_[c]) * stride_;
    }
    // Whether all rows have the same number in this column; it is the first one staged.
    bool is_constant(int c) const { return constant_[place_[c]]; }
    // Whether columns are the same numbers in n of the rows staged.
    bool same(int a, int b, int n, int at = 0) const {
        const double *x = column(a) + at, *y = column(b) + at;
        if (x == y) return true;
        return x[0] == y[0] && std::memcmp(x, y, static_cast<std::size_t>(n) * sizeof(double)) == 0;
    }

    // Rows at positions first … first + n - 1 into places `at` … at + n - 1. Up to a pack less one of the
    // places behind are written too.
    void read(Index first, int n, int at) {
        if (n == 0) return;
        read_columns(first, n, at);
        change_basis(rows_.Z_map, 0, at, n);
        change_basis(rows_.X_map, q_, at, n);
        if (rows_.offset) subtract_offset(first, n, at);
        subtract_X_beta(n, at);
        if (rows_.weights) weigh(first, n, at);
    }

    // Asks for rows that will be read next.
    EIGEN_ALWAYS_INLINE void prefetch(Index first, Index n) const {
        for (const SideBySide& together : together_)
            prefetch_rows(sources_[together.columns[0]], first, rows_.order, n);
    }

    // Whether all values were as their columns expected.
    bool as_expected() const { return as_expected_; }
    double log_weights() const { return log_weights_; }
    double min_weight() const { return min_weight_; }

  private:
    double* mutable_column(int c) { return values_.data() + static_cast<std::size_t>(place_[c]) * stride_; }
    double* spare() { return values_.data() + static_cast<std::size_t>(n_columns()) * stride_; }

    const Column& given(int c) const { return c < q_ ? rows_.Z[c] : c < q_ + p_ ? rows_.X[c - q_] : rows_.y; }
    static bool same_source(const Column& a, const Column& b) {
        const bool same_expected =
            a.expected == b.expected || (std::isnan(a.expected) && std::isnan(b.expected));
        return a.data == b.data && a.stride == b.stride && a.type == b.type && a.shift == b.shift &&
               a.scale_inv == b.scale_inv && same_expected;
    }
    // Columns of one number go through the tile without being transposed; those of stride 0 are staged now
    // and never read again.
    void find_constants() {
        constant_.assign(static_cast<std::size_t>(n_columns()), false);
        if (rows_.weights || rows_.Z_map.T || rows_.X_map.T) return;
        for (int c = 0; c < q_ + p_; ++c)
            constant_[c] = given(c).stride == 0 || !std::isnan(given(c).expected);
    }
    bool is_filled(int c) const { return constant_[c] && given(c).stride == 0; }
    // A column of X that is the user's very column of Z is staged once. A change of basis is made in place,
    // so then each has its own.
    void find_sources() {
        place_.resize(static_cast<std::size_t>(n_columns()));
        for (int c = 0; c < n_columns(); ++c) place_[c] = c;
        if (!rows_.Z_map.T && !rows_.X_map.T)
            for (int j = q_; j < q_ + p_; ++j)
                for (int k = q_; k-- > 0;)
                    if (same_source(given(j), given(k))) place_[j] = k;
        for (int c = 0; c < n_columns(); ++c) {
            if (place_[c] != c || is_filled(c)) continue;
            sources_.push_back(given(c));
            source_place_.push_back(c);
        }
        for (int c = 0; c < n_columns(); ++c)
            if (is_filled(c)) given(c).read(0, nullptr, stride_, mutable_column(c));
        if (rows_.offset) {  // which comes off y before the shift
            sources_.back().shift = 0.0;
            sources_.back().scale_inv = 1.0;
        }
        together_ = find_side_by_side(sources_);
    }
    void read_columns(Index first, int n, int at) {
        const auto to = [&](int s) { return mutable_column(source_place_[s]) + at; };
        for (const SideBySide& together : together_) {
            if constexpr (detail::widest == 4)
                if (together.width == 4) read_side_by_side<4>(sources_, together, first, rows_.order, n, to);
            if (together.width == 2) read_side_by_side<2>(sources_, together, first, rows_.order, n, to);
            if (together.width == 1) {
                const int s = together.columns[0];
                sources_[s].read(first, rows_.order, n, to(s));
            }
        }
        for (std::size_t s = 0; s < sources_.size(); ++s)
            if (!std::isnan(sources_[s].expected))
                compare_to_expected(sources_[s], n, to(static_cast<int>(s)));
    }
    void compare_to_expected(const Column& column, int n, const double* values) {
        const double expected = (column.expected - column.shift) * column.scale_inv;
        bool same = true;
        for (int i = 0; i < n; ++i) same &= values[i] == expected;
        as_expected_ &= same;
    }
    // call(i) for the first row of every pack
    template <class Call>
    static void for_packs(int n, const Call& call) {
        for (int i = 0; i < n; i += Pack::size) call(i);
    }
    // x <- x + a y
    static void add_multiple(double* x, const double* y, double a, int n) {
        const Pack factor = Pack::all(a);
        for_packs(n, [&](int i) {
            multiply_add(Pack::load_unaligned(y + i), factor, Pack::load_unaligned(x + i))
                .store_unaligned(x + i);
        });
    }
    // From the last column to the first, so that the earlier ones are still as they were.
    void change_basis(const ColumnMap& map, int first, int at, int n) {
        if (!map.T) return;
        for (int j = map.size; j-- > 0;) {
            double* x = mutable_column(first + j) + at;
            const Pack t_jj = Pack::all(map.T[j * map.size + j]);
            for_packs(n, [&](int i) { (Pack::load_unaligned(x + i) * t_jj).store_unaligned(x + i); });
            for (int k = 0; k < j; ++k) {
                const double t = map.T[k * map.size + j];
                if (t != 0.0) add_multiple(x, column(first + k) + at, t, n);
            }
        }
    }
    void subtract_offset(Index first, int n, int at) {
        double *r = mutable_column(q_ + p_) + at, *offset = spare();
        rows_.offset->read(first, rows_.order, n, offset);
        for (int i = 0; i < n; ++i) r[i] = (r[i] - offset[i] - rows_.y.shift) * rows_.y.scale_inv;
    }
    void subtract_X_beta(int n, int at) {
        constexpr int width = 4;  // columns at a time, so that r is written less often
        double* r = mutable_column(q_ + p_) + at;
        for (int j = 0; j < p_; j += width) {
            if (j + width > p_) {
                for (; j < p_; ++j) add_multiple(r, column(q_ + j) + at, -rows_.beta[j], n);
                return;
            }
            const double* x[width];
            Pack b[width];
            unroll<width>([&](auto k) {
                x[k] = column(q_ + j + k) + at;
                b[k] = Pack::all(-rows_.beta[j + k]);
            });
            for_packs(n, [&](int i) {
                Pack sum = Pack::load_unaligned(r + i);
                unroll<width>([&](auto k) { sum = multiply_add(Pack::load_unaligned(x[k] + i), b[k], sum); });
                sum.store_unaligned(r + i);
            });
        }
    }
    void weigh(Index first, int n, int at) {
        double* root = spare();
        rows_.weights->read(first, rows_.order, n, root);
        for (int i = 0; i < n; ++i) {
            min_weight_ = root[i] < min_weight_ ? root[i] : min_weight_;
            log_weights_ += std::log(root[i]);
            root[i] = std::sqrt(root[i]);
        }
        for (int c = 0; c < n_columns(); ++c) {
            if (place_[c] != c) continue;
            double* x = mutable_column(c) + at;
            for (int i = 0; i < n; ++i) x[i] *= root[i];
        }
    }

    const Rows& rows_;
    int stride_, capacity_, q_, p_;
    std::vector<double> values_;  // (q + p + 2, stride): [Z X y] and a spare column
    std::vector<int> place_;      // (q + p + 1,): where a column is staged
    std::vector<bool> constant_;
    std::vector<Column> sources_;  // the columns that are read, and where each is staged
    std::vector<int> source_place_;
    std::vector<SideBySide> together_;
    bool as_expected_ = true;
    double log_weights_ = 0.0, min_weight_ = std::numeric_limits<double>::infinity();
};

}  // namespace lmmfast
