// The linear recursions of the Markov engine over the rows of a cluster, eight columns at a time
// (docs/markov.md, M4, M6, M11).
//
// A panel is (n_i, 8), row by row, 64-byte aligned.
#pragma once

#include <algorithm>
#include <array>

#include "lmmfast/base/packs.hpp"
#include "lmmfast/engines/markov/filter.hpp"

namespace lmmfast::detail {

// A row of a panel.
struct PanelRow {
    std::array<Pack, packs_per_block> part;

    static PanelRow zero() {
        PanelRow row;
        row.part.fill(Pack::zero());
        return row;
    }
    static PanelRow load(const double* p) {
        PanelRow row;
        unroll<packs_per_block>([&](auto s) { row.part[s] = Pack::load(p + s * Pack::size); });
        return row;
    }
    void store(double* p) const {
        unroll<packs_per_block>([&](auto s) { part[s].store(p + s * Pack::size); });
    }
    friend PanelRow operator+(PanelRow a, const PanelRow& b) {
        unroll<packs_per_block>([&](auto s) { a.part[s] += b.part[s]; });
        return a;
    }
    friend PanelRow operator-(PanelRow a, const PanelRow& b) {
        unroll<packs_per_block>([&](auto s) { a.part[s] -= b.part[s]; });
        return a;
    }
    friend PanelRow operator*(double x, PanelRow a) {
        unroll<packs_per_block>([&](auto s) { a.part[s] = a.part[s] * x; });
        return a;
    }
    // x a + b
    friend PanelRow multiply_add(double x, const PanelRow& a, PanelRow b) {
        const Pack factor = Pack::all(x);
        unroll<packs_per_block>([&](auto s) { b.part[s] = multiply_add(factor, a.part[s], b.part[s]); });
        return b;
    }
};

// Y <- L^-1 a, Y holding a = A / s.
inline void whiten(const MarkovStep* steps, Index n, double* Y) {
    PanelRow carried = PanelRow::zero(), before = PanelRow::zero();
    for (Index j = 0; j < n; ++j) {
        const MarkovStep& s = steps[j];
        const PanelRow a = PanelRow::load(Y + j * lanes), e = (a - before) + carried;
        (s.r * e).store(Y + j * lanes);
        carried = multiply_add(s.beta, e, s.less * a);
        before = a;
    }
}

// U <- N_k Y
inline void apply_N(const MarkovStep* steps, const MarkovSlope* slopes, Index n, const double* Y, double* U) {
    PanelRow m = PanelRow::zero(), x = PanelRow::zero();
    for (Index j = 0; j < n; ++j) {
        const MarkovStep& s = steps[j];
        const MarkovSlope& d = slopes[j];
        const PanelRow y = PanelRow::load(Y + j * lanes);
        multiply_add(s.r, x, multiply_add(d.rG, m, d.diagonal * y)).store(U + j * lanes);
        x = multiply_add(s.beta, x, multiply_add(d.alpha, m, d.h * y));
        m = multiply_add(s.c, m, s.h * y);
    }
}

// U <- U + N_k'Y
inline void add_N_transposed(const MarkovStep* steps, const MarkovSlope* slopes, Index n, const double* Y,
                             double* U) {
    PanelRow of_m = PanelRow::zero(), of_x = PanelRow::zero();  // what m and x of the next row bring about
    for (Index j = n - 1; j >= 0; --j) {
        const MarkovStep& s = steps[j];
        const MarkovSlope& d = slopes[j];
        const PanelRow y = PanelRow::load(Y + j * lanes), u = PanelRow::load(U + j * lanes);
        multiply_add(s.h, of_m, multiply_add(d.h, of_x, multiply_add(d.diagonal, y, u))).store(U + j * lanes);
        of_m = multiply_add(s.c, of_m, multiply_add(d.alpha, of_x, d.rG * y));
        of_x = multiply_add(s.beta, of_x, s.r * y);
    }
}

// out (Left, 8) <- left'right for `Left` columns of the panel `left`. Rows are summed in groups, so that
// rounding does not grow with their number.
template <int Left>
void multiply_columns(const double* left, const double* right, Index n, double* out) {
    constexpr Index rows_a_group = 256;
    std::fill(out, out + Left * lanes, 0.0);
    for (Index begin = 0; begin < n; begin += rows_a_group) {
        const Index end = std::min(n, begin + rows_a_group);
        std::array<PanelRow, Left> sums;
        sums.fill(PanelRow::zero());
        for (Index j = begin; j < end; ++j) {
            const PanelRow row = PanelRow::load(right + j * lanes);
            unroll<Left>([&](auto a) { sums[a] = multiply_add(left[j * lanes + a], row, sums[a]); });
        }
        unroll<Left>([&](auto a) {
            double* sum = out + a * lanes;
            (PanelRow::load(sum) + sums[a]).store(sum);
        });
    }
}

// out (n_left, 8) <- left'right for the first n_left columns of `left`. `out` is 64-byte aligned and has
// place for eight rows.
inline void multiply_panels(const double* left, int n_left, const double* right, Index n, double* out) {
    constexpr int most = Pack::size;  // as many sums as registers hold
    int a = 0;
    for (; n_left - a > most / 2; a += most) multiply_columns<most>(left + a, right, n, out + a * lanes);
    for (; a < n_left; ++a) multiply_columns<1>(left + a, right, n, out + a * lanes);
}

}  // namespace lmmfast::detail
