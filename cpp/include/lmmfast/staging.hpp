// Some rows in the working basis, column by column: everything that is done to rows one by one, before
// clusters are laid side by side.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "lmmfast/rows.hpp"

namespace lmmfast {

class StagedRows {
  public:
    // Room for `capacity` rows of [Z X y], and beyond the last one for a whole load of a register.
    StagedRows(const Rows& rows, int capacity)
        : rows_(rows),
          stride_(capacity + lanes),
          q_(static_cast<int>(rows.Z.size())),
          p_(static_cast<int>(rows.X.size())),
          values_(static_cast<std::size_t>(n_columns() + 1) * stride_, 0.0) {}

    int n_columns() const { return q_ + p_ + 1; }
    int capacity() const { return stride_ - lanes; }
    const double* column(int c) const { return values_.data() + static_cast<std::size_t>(c) * stride_; }

    // Rows at positions first … first + n - 1 into places `at` … at + n - 1.
    void read(Index first, int n, int at) {
        for (int k = 0; k < q_; ++k) read_column(rows_.Z[k], first, n, mutable_column(k) + at);
        for (int j = 0; j < p_; ++j) read_column(rows_.X[j], first, n, mutable_column(q_ + j) + at);
        change_basis(rows_.Z_map, 0, at, n);
        change_basis(rows_.X_map, q_, at, n);
        read_residual(first, n, at);
        if (rows_.weights) weigh(first, n, at);
    }

    // Whether all values were as their columns expected.
    bool as_expected() const { return as_expected_; }
    double log_weights() const { return log_weights_; }
    double min_weight() const { return min_weight_; }

  private:
    double* mutable_column(int c) { return values_.data() + static_cast<std::size_t>(c) * stride_; }
    double* spare() { return mutable_column(n_columns()); }

    void read_column(const Column& column, Index first, int n, double* to) {
        column.read(first, rows_.order, n, to);
        if (std::isnan(column.expected)) return;
        const double value = (column.expected - column.shift) * column.scale_inv;
        bool same = true;
        for (int i = 0; i < n; ++i) same &= to[i] == value;
        as_expected_ &= same;
    }
    // From the last column to the first, so that the earlier ones are still as they were.
    void change_basis(const ColumnMap& map, int first, int at, int n) {
        if (!map.T) return;
        for (int j = map.size; j-- > 0;) {
            double* x = mutable_column(first + j) + at;
            const double t_jj = map.T[j * map.size + j];
            for (int i = 0; i < n; ++i) x[i] *= t_jj;
            for (int k = 0; k < j; ++k) {
                const double t = map.T[k * map.size + j];
                const double* earlier = column(first + k) + at;
                if (t != 0.0)
                    for (int i = 0; i < n; ++i) x[i] += earlier[i] * t;
            }
        }
    }
    // y less offset, shift and X beta
    void read_residual(Index first, int n, int at) {
        double* r = mutable_column(q_ + p_) + at;
        if (rows_.offset) {
            Column y = rows_.y;
            y.shift = 0.0;
            y.scale_inv = 1.0;
            double* offset = spare();
            y.read(first, rows_.order, n, r);
            rows_.offset->read(first, rows_.order, n, offset);
            for (int i = 0; i < n; ++i) r[i] = (r[i] - offset[i] - rows_.y.shift) * rows_.y.scale_inv;
        } else {
            rows_.y.read(first, rows_.order, n, r);
        }
        for (int j = 0; j < p_; ++j) {
            const double b = rows_.beta[j];
            const double* x = column(q_ + j) + at;
            if (b != 0.0)
                for (int i = 0; i < n; ++i) r[i] -= x[i] * b;
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
            double* x = mutable_column(c) + at;
            for (int i = 0; i < n; ++i) x[i] *= root[i];
        }
    }

    const Rows& rows_;
    int stride_, q_, p_;
    std::vector<double> values_;  // (q + p + 2, stride): [Z X y] and a spare column
    bool as_expected_ = true;
    double log_weights_ = 0.0, min_weight_ = std::numeric_limits<double>::infinity();
};

}  // namespace lmmfast
