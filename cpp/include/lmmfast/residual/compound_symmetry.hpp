// Compound symmetry: one correlation rho between all levels, in (lo, 1) with lo = -1/(T-1), where the
// table is singular: rho = lo + (1 - lo) / (1 + exp(-psi)).
#pragma once

#include "lmmfast/residual/table.hpp"

namespace lmmfast {

struct CompoundSymmetry {
    static constexpr const char* name = "compound_symmetry";

    static int n_params(int) { return 1; }

    static void table(int T, int, const double* psi, double* C, double* dC) {
        TableWriter out(T, C, dC);
        out.set_diagonal();
        const double lo = -1.0 / (T - 1), share = 1.0 / (1.0 + std::exp(-*psi));
        const double complement = 1.0 / (1.0 + std::exp(*psi));
        for (int i = 0; i < T; ++i)
            for (int j = 0; j < i; ++j) {
                out.set(i, j, lo + (1.0 - lo) * share);
                out.set_derivative(0, i, j, (1.0 - lo) * share * complement);
            }
    }
};

}  // namespace lmmfast
