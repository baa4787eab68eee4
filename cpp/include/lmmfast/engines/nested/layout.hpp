// Nested factors: the tree of units, and where the totals of a unit stand (docs/nested.md).
//
// Level 0 is the outermost factor, level L-1 the innermost. A unit is a level of a factor with all that lies
// inside. The units of a level see the columns A_l = [Z_{l-1} … Z_0 X r]: those of the factors around them,
// the nearest first, and the fixed ones. Parameters are numbered from the innermost level outwards.
#pragma once

#include <vector>

#include "lmmfast/rows/clusters.hpp"

namespace lmmfast {

// The parameters of one level are the entries (a, b), a <= b, of vech; E = f (e_a e_b' + e_b e_a').
struct VechEntry {
    int a, b;
    double f;
};

inline std::vector<VechEntry> vech_entries(int q) {
    std::vector<VechEntry> out;
    for (int a = 0; a < q; ++a)
        for (int b = a; b < q; ++b) out.push_back({a, b, a == b ? 0.5 : 1.0});
    return out;
}

// Totals of one unit over P columns of which the first `o` belong to factors further out, by K parameters.
// Only the rows of these o columns are kept: what lies beyond adds up over all units (TotalLayout). Of
// symmetric matrices there is the upper triangle by rows; kr (n_kr, n_kr) stands for each pair k <= l.
struct UnitLayout {
    int o = 0, P = 0, K = 0, n_kr = 0;

    int head() const { return o * P - o * (o - 1) / 2; }
    Index gram() const { return 0; }
    Index quad(int k) const { return Index{head()} * (1 + k); }
    Index kr(int k, int l) const { return quad(K) + Index{n_kr} * n_kr * pair_index(k, l, K); }
    Index size() const { return quad(K) + Index{n_kr} * n_kr * n_pairs(K); }
};

// What adds up over all units: trace, info, and gram, quad (upper triangles) and kr of the fixed columns.
struct TotalLayout {
    int p1 = 0, K = 0;
    bool with_kr = false;

    Index logdet() const { return 0; }
    Index trace() const { return 1; }
    Index info(int k, int l) const { return 1 + K + pair_index(k, l, K); }
    Index gram() const { return 1 + K + n_pairs(K); }
    Index quad(int k) const { return gram() + Index{n_pairs(p1)} * (1 + k); }
    Index kr() const { return quad(K); }
    Index size() const { return kr() + (with_kr ? Index{p1} * p1 * n_pairs(K) : 0); }
};

struct NestedLevel {
    std::vector<int> columns;             // columns of Z that this factor owns, (q_l,)
    Index m = 0;                          // number of units
    const std::int64_t* first = nullptr;  // (m + 1,) first unit one level further in; null innermost
    const double* centre = nullptr;       // (m, q_l, P - q_l): C0 of each unit; null innermost

    int q() const { return static_cast<int>(columns.size()); }
};

// The innermost units lie in blocks of eight that do not straddle the units around them.
struct NestedTree {
    std::vector<NestedLevel> levels;
    int p1 = 0;
    int K_R = 0;  // parameters of the residuals; they come after those of the innermost level
    const std::int64_t* first_block = nullptr;  // (m + 1,) of the lowest outer level: blocks of its units
    const double* perp = nullptr;               // (m, P (P + 1) / 2): beyond the span of the innermost Z

    int depth() const { return static_cast<int>(levels.size()); }
    int n_outer_columns(int level) const {
        int o = 0;
        for (int l = 0; l < level; ++l) o += levels[l].q();
        return o;
    }
    int q() const { return n_outer_columns(depth()); }
    // The totals that units of `level` hand out, own effects absorbed.
    UnitLayout handed_out(int level, bool with_kr) const {
        UnitLayout out;
        out.o = n_outer_columns(level);
        out.P = out.o + p1;
        out.K = K_R;
        for (int l = level; l < depth(); ++l) out.K += n_pairs(levels[l].q());
        out.n_kr = with_kr ? out.P : out.o;
        return out;
    }
    TotalLayout total(bool with_kr) const { return {p1, handed_out(0, with_kr).K, with_kr}; }
    // Columns of a row at the innermost level: [Z_{L-1} | A_{L-1}].
    Layout innermost() const { return {levels.back().q(), n_outer_columns(depth() - 1) + p1}; }
};

// The block of Lambda (q, q) that belongs to one factor.
inline std::vector<double> own_block(const NestedLevel& level, const double* matrix, int q) {
    std::vector<double> out;
    for (const int a : level.columns)
        for (const int b : level.columns) out.push_back(matrix[a * q + b]);
    return out;
}

}  // namespace lmmfast
