// C0 of each unit of the outer levels: the coefficients by which columns are taken about Z inside it.
//
// Any C0 gives the same totals. Least squares leave nothing of a column in the span of Z, and little of the
// others to cancel. Where the rows of a unit come in several lots, the first lot decides.
#pragma once

#include <cmath>
#include <vector>

#include "lmmfast/engines/nested/layout.hpp"

namespace lmmfast::detail {

// C0 (q, n) with S_ZZ C0 = S_ZA by elimination with pivots from the diagonal; columns of Z that depend on
// others get zero. S (q, q + n) = [S_ZZ S_ZA] is used up.
inline void least_squares(int q, int n, double* S, double* C0) {
    constexpr double tolerance = 1e-10;
    const int width = q + n;
    std::vector<double> size(static_cast<std::size_t>(q));
    std::vector<char> used(size.size(), 0);
    for (int a = 0; a < q; ++a) size[a] = S[a * width + a];
    for (int step = 0; step < q; ++step) {
        int pivot = -1;
        double best = tolerance;
        for (int a = 0; a < q; ++a)
            if (!used[a] && S[a * width + a] > best * size[a]) {
                pivot = a;
                best = S[a * width + a] / size[a];
            }
        if (pivot < 0) break;
        used[pivot] = 1;
        double* row = S + pivot * width;
        const double value = row[pivot];
        for (int j = 0; j < width; ++j) row[j] /= value;
        for (int a = 0; a < q; ++a) {
            const double factor = S[a * width + pivot];
            if (a == pivot || factor == 0.0) continue;
            for (int j = 0; j < width; ++j) S[a * width + j] -= factor * row[j];
        }
    }
    for (int a = 0; a < q; ++a)
        for (int j = 0; j < n; ++j) C0[a * n + j] = used[a] ? S[a * width + q + j] : 0.0;
}

// Rows of some neighbouring innermost units inside one unit of the level around them.
struct NestedSegment {
    Index unit;        // of the lowest outer level
    Index begin, end;  // innermost units
};

// Determines C0 of the units that begin among the segments, from their products Z'A: (o, P) each, which are
// used up. `first_of(l, i)` is the first innermost unit of unit i of level l, `first_unit` that of the lot.
template <class FirstOf>
void set_centres(const NestedTree& tree, const std::vector<NestedSegment>& segments,
                 std::vector<double>& products, const std::vector<double*>& centre, Index first_unit,
                 const FirstOf& first_of) {
    const int depth = tree.depth(), o = tree.n_outer_columns(depth - 1), P = o + tree.p1;
    std::vector<double> S;
    for (int l = 0; l + 1 < depth; ++l) {
        const int q = tree.levels[l].q(), n = tree.n_outer_columns(l) + tree.p1, at = P - n - q;
        Index unit = 0;
        for (std::size_t s = 0; s < segments.size();) {
            while (first_of(l, unit + 1) <= segments[s].begin) ++unit;
            std::size_t end = s;
            while (end < segments.size() && segments[end].begin < first_of(l, unit + 1)) ++end;
            double* C0 = centre[l] + unit * q * n;
            if (first_of(l, unit) >= first_unit) {
                S.assign(static_cast<std::size_t>(q * (q + n)), 0.0);
                for (std::size_t t = s; t < end; ++t)
                    for (int a = 0; a < q; ++a)
                        for (int j = 0; j < q + n; ++j)
                            S[a * (q + n) + j] += products[(t * o + at + a) * P + at + j];
                least_squares(q, n, S.data(), C0);
            }
            for (; s < end; ++s)  // the products of columns further in with those that are centred now
                for (int i = 0; i < at; ++i) {
                    double* row = &products[(s * o + i) * P];
                    for (int j = 0; j < n; ++j)
                        for (int a = 0; a < q; ++a) row[at + q + j] -= row[at + a] * C0[a * n + j];
                }
        }
    }
}

}  // namespace lmmfast::detail
