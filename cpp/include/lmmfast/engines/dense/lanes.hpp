// The algebra of small matrices in lanes: entry by entry a pack of patterns, row-major, products blocked
// in registers.
#pragma once

#include <algorithm>

#include "lmmfast/base/packs.hpp"

namespace lmmfast {

// log of a product of pivots of any size: mantissas are multiplied, exponents added. Not finite where a
// pivot is not positive or not finite, given that all pivots after such a one are NaN.
class LogPivots {
  public:
    void multiply(Pack pivot) {
        add_exponent(pivot);
        product_ *= pivot;
        if (++count_ % 512 == 0) add_exponent(product_);
    }
    Pack total() const { return multiply_add(exponent_, Pack::all(std::log(2.0)), product_.log()); }

  private:
    void add_exponent(Pack& x) {
        Pack exponent;
        x.v = Eigen::internal::pfrexp(x.v, exponent.v);
        exponent_ += exponent;
    }
    Pack product_ = Pack::all(1.0), exponent_ = Pack::zero();
    int count_ = 0;
};

class LaneAlgebra {
  public:
    using Scalar = Pack;
    static constexpr Index units_between_checks = 32;

    // V = L L' of its lower triangle, in whose place -L comes off the diagonal; d_inv (n,) are the inverses
    // of the diagonal. Returns log|V|, not finite in lanes where V is not positive definite.
    static Pack factorise(Pack* V, Pack* d_inv, int n) {
        LogPivots det;
        for (Index k = 0; k < n; ++k) {
            const Pack pivot = V[k * n + k], inverse = pivot.sqrt().inverse();
            det.multiply(pivot);
            d_inv[k] = inverse;
            for (Index i = k + 1; i < n; ++i) {
                const Pack l = V[i * n + k] * inverse;
                V[i * n + k] = -l;
                V[k * n + i] = l;  // a row is quicker to read than a column
                for (Index j = k + 1; j <= i; ++j)
                    V[i * n + j] = multiply_add(-l, V[k * n + j], V[i * n + j]);
            }
        }
        return det.total();
    }

    // X (n, m) <- L^-1 X
    static void solve(const Pack* L, const Pack* d_inv, int n, Pack* X, int m) {
        for_each_tile<max_columns>(
            m, [&](int begin, auto size) { solve_columns<size.value>(L, d_inv, n, X + begin, m, 0); });
    }

    // X <- L^-1 X L^-T for symmetric X (n, n)
    static void congruence(const Pack* L, const Pack* d_inv, int n, Pack* X) {
        solve(L, d_inv, n, X, n);
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < i; ++j) std::swap(X[i * n + j], X[j * n + i]);
        for_each_tile<max_columns>(n, [&](int begin, auto size) {
            for (Index i = 0; i < begin; ++i)  // the result is symmetric
                for (Index j = begin; j < begin + size.value; ++j) X[i * n + j] = X[j * n + i];
            solve_columns<size.value>(L, d_inv, n, X + begin, n, begin);
        });
    }

    // out (a, b) = X'Y, or added to it, for X (depth, a) and Y (depth, b)
    static void product(const Pack* X, int a, const Pack* Y, int b, int depth, Pack* out,
                        bool accumulate = false) {
        for_each_tile<max_tile>(a, [&](int row, auto rows) {
            for_each_tile<max_tile>(b, [&](int column, auto columns) {
                product_tile<rows.value, columns.value>(X + row, a, Y + column, b, depth,
                                                        out + Index{row} * b + column, accumulate);
            });
        });
    }

    // The lower triangle of out (a, a) += X'Y, which is symmetric
    static void add_symmetric(const Pack* X, const Pack* Y, int a, int depth, Pack* out) {
        for_each_tile<max_tile>(a, [&](int row, auto rows) {
            for_each_tile<max_tile>(a, [&](int column, auto columns) {
                if (column > row) return;
                product_tile<rows.value, columns.value>(X + row, a, Y + column, a, depth,
                                                        out + Index{row} * a + column, true);
            });
        });
    }

    static Pack dot(const Pack* a, const Pack* b, Index count) {
        Pack sums[4] = {Pack::zero(), Pack::zero(), Pack::zero(), Pack::zero()};
        Index e = 0;
        for (; e + 4 <= count; e += 4)
            for (int s = 0; s < 4; ++s) sums[s] = multiply_add(a[e + s], b[e + s], sums[s]);
        for (; e < count; ++e) sums[0] = multiply_add(a[e], b[e], sums[0]);
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

  private:
    // As many as registers hold.
    static constexpr int max_tile = Pack::size >= 8 ? 4 : 3;
    static constexpr int max_columns = Pack::size >= 8 ? 8 : 6;

    // call(begin, size) for parts of 0 … n - 1 of nearly equal size, known to the compiler.
    template <int Max, class Call>
    static void for_each_tile(int n, const Call& call) {
        const int n_tiles = (n + Max - 1) / Max;
        for (int t = 0; t < n_tiles; ++t) {
            const int begin = t * n / n_tiles, size = (t + 1) * n / n_tiles - begin;
            with_size<Max>(size, [&](auto fixed) { call(begin, fixed); });
        }
    }
    template <int Size, class Call>
    static void with_size(int size, const Call& call) {
        if constexpr (Size == 1) {
            call(std::integral_constant<int, 1>{});
        } else {
            if (size == Size) return call(std::integral_constant<int, Size>{});
            with_size<Size - 1>(size, call);
        }
    }

    // Some columns of X (n, stride), whose rows before `first` are solved already.
    template <int Columns>
    static void solve_columns(const Pack* L, const Pack* d_inv, int n, Pack* X, Index stride, int first) {
        for (Index i = first; i < n; ++i) {
            Pack acc[Columns];
            Pack* row = X + i * stride;
            unroll<Columns>([&](auto c) { acc[c] = row[c]; });
            for (Index j = 0; j < i; ++j) {
                const Pack l = L[i * n + j];
                const Pack* x = X + j * stride;
                unroll<Columns>([&](auto c) { acc[c] = multiply_add(l, x[c], acc[c]); });
            }
            unroll<Columns>([&](auto c) { row[c] = acc[c] * d_inv[i]; });
        }
    }

    template <int Rows, int Columns>
    static void product_tile(const Pack* X, Index a, const Pack* Y, Index b, int depth, Pack* out,
                             bool accumulate) {
        Pack acc[Rows * Columns];
        unroll<Rows * Columns>(
            [&](auto e) { acc[e] = accumulate ? out[(e / Columns) * b + e % Columns] : Pack::zero(); });
        for (Index i = 0; i < depth; ++i) {
            Pack y[Columns];
            unroll<Columns>([&](auto c) { y[c] = Y[i * b + c]; });
            unroll<Rows>([&](auto r) {
                const Pack x = X[i * a + r];
                unroll<Columns>([&](auto c) {
                    Pack& sum = acc[r * Columns + c];
                    sum = multiply_add(x, y[c], sum);
                });
            });
        }
        unroll<Rows * Columns>([&](auto e) { out[(e / Columns) * b + e % Columns] = acc[e]; });
    }
};

}  // namespace lmmfast
