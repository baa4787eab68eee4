// Banded Toeplitz: rho_k = tanh(psi_k) for the lags that have a parameter, zero beyond. Not every psi gives
// a positive definite table; the Cholesky factorisation of V tells.
#pragma once

#include "lmmfast/residual/table.hpp"

namespace lmmfast {

struct BandedToeplitz {
    static constexpr const char* name = "banded_toeplitz";

    static int n_params(int) { return any_number; }

    static void table(int T, int n_lags, const double* psi, double* C, double* dC) {
        TableWriter out(T, C, dC);
        out.set_diagonal();
        for (int lag = 1; lag <= n_lags; ++lag)
            for (int i = lag; i < T; ++i) {
                out.set(i, i - lag, std::tanh(psi[lag - 1]));
                out.set_derivative(lag - 1, i, i - lag, tanh_derivative(psi[lag - 1]));
            }
    }
};

}  // namespace lmmfast
