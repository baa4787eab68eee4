// ARMA(1,1): gamma rho^(k-1) at lag k, with rho = tanh(psi_1) and gamma = (rho + tanh(psi_2)) / 2, whose
// range from -(1 - rho)/2 to (1 + rho)/2 is that of the process with an invertible moving average.
#pragma once

#include "lmmfast/residual/table.hpp"

namespace lmmfast {

struct Arma11 {
    static constexpr const char* name = "arma11";

    static int n_params(int) { return 2; }

    static void table(int T, int, const double* psi, double* C, double* dC) {
        TableWriter out(T, C, dC);
        out.set_diagonal();
        const double rho = std::tanh(psi[0]), gamma = 0.5 * (rho + std::tanh(psi[1]));
        const double d_rho = tanh_derivative(psi[0]), d_gamma = 0.5 * tanh_derivative(psi[1]);
        double power = 1.0, d_power = 0.0;  // rho^(lag-1), and its derivative by rho
        for (int lag = 1; lag < T; ++lag) {
            for (int i = lag; i < T; ++i) {
                out.set(i, i - lag, gamma * power);
                out.set_derivative(0, i, i - lag, d_rho * (0.5 * power + gamma * d_power));
                out.set_derivative(1, i, i - lag, d_gamma * power);
            }
            d_power = power + rho * d_power;
            power *= rho;
        }
    }
};

}  // namespace lmmfast
