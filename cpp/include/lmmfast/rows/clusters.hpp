// Clusters after compression: what the likelihood needs of each, free of its number of rows.
//
// With Z_i = Q_i R_i (thin QR) the matrix V_i = sigma2 (I + Z_i Ddot Z_i') acts as
// sigma2 (I + R_i Ddot R_i') on the span of Q_i and as sigma2 I beside it. So R_i (q, q), Q_i'A_i
// (q, p1) of each cluster and the sum of A_i'(I - Q_i Q_i')A_i over all of them say everything
// (docs/algorithm.md, section 2).
#pragma once

#include "lmmfast/base/lanes.hpp"

namespace lmmfast {

// Sizes: q random effects, p1 = p + 1 columns of A = [X y].
struct Layout {
    int q = 0;
    int p1 = 0;

    int n_fields() const { return n_pairs(q) + q * p1; }
    int r(int a, int b) const { return pair_index(a, b, q); }       // R(a, b), a <= b
    int qa(int a, int j) const { return n_pairs(q) + a * p1 + j; }  // (Q'A)(a, j)
};

// Blocks of eight clusters: data[(block * n_fields + field) * lanes + lane], 64-byte aligned.
// Lanes beyond the last cluster hold zeros, which add nothing to any sum. `counts` (n_blocks, lanes) says
// for how many clusters of this R each one stands where clusters of one design were put together
// (engines/share.hpp); otherwise it is null.
struct ClusterBlocks {
    Layout layout;
    Index n_blocks = 0;
    const double* data = nullptr;
    const double* counts = nullptr;
    const int* z_in_x = nullptr;  // (q,): the column of X that each column of Z is too; null: not all are

    const double* block(Index k) const { return data + k * layout.n_fields() * lanes; }
};

}  // namespace lmmfast
