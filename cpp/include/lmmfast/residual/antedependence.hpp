// First-order antedependence: rho_j = tanh(psi_j) between the levels j and j + 1, products of them between
// levels farther apart.
#pragma once

#include "lmmfast/residual/table.hpp"

namespace lmmfast {

struct Antedependence {
    static constexpr const char* name = "antedependence";

    static int n_params(int T) { return T - 1; }

    static void table(int T, int K, const double* psi, double* C, double* dC) {
        TableWriter out(T, C, dC);
        out.set_diagonal();
        for (int j = 0; j < T; ++j)
            for (int i = j + 1; i < T; ++i) out.set(i, j, out.C(i - 1, j) * std::tanh(psi[i - 1]));
        for (int k = 0; k < K; ++k)
            for (int j = 0; j <= k; ++j)
                for (int i = k + 1; i < T; ++i)
                    out.set_derivative(k, i, j, out.C(k, j) * tanh_derivative(psi[k]) * out.C(i, k + 1));
    }
};

}  // namespace lmmfast
