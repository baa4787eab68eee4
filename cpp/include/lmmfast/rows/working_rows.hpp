// Rows in the working basis as matrices, for engines that are built from rows.
#pragma once

#include <algorithm>

#include "lmmfast/base/parallel.hpp"
#include "lmmfast/rows/staging.hpp"

namespace lmmfast {

// A = [X r] (n, p + 1) and Z (n, q), row-major, of the rows order[0] … order[n - 1], or 0 … n - 1.
inline void working_rows(const Rows& rows, Index n, double* A, double* Z, int n_threads,
                         Interrupt& interrupt) {
    constexpr int chunk = 2048;
    constexpr Index rows_worth_a_thread = 16384;
    const int q = static_cast<int>(rows.Z.size()), p1 = static_cast<int>(rows.X.size()) + 1;
    const auto threads = static_cast<int>(std::clamp<Index>(n / rows_worth_a_thread, 1, n_threads));
    parallel_for((n + chunk - 1) / chunk, threads, interrupt, [&](Index task) {
        StagedRows staged(rows, chunk);
        const Index first = task * chunk;
        const int count = static_cast<int>(std::min<Index>(chunk, n - first));
        staged.read(first, count, 0);
        const auto spread = [&](int column, int width, int place, double* to) {
            const double* from = staged.column(column);
            double* at = to + first * width + place;
            for (int i = 0; i < count; ++i) at[Index{i} * width] = from[i];
        };
        for (int k = 0; k < q; ++k) spread(k, q, k, Z);
        for (int j = 0; j < p1; ++j) spread(q + j, p1, j, A);
    });
}

}  // namespace lmmfast
