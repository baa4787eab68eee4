// Toeplitz: one correlation for each lag, from partial autocorrelations tanh(psi_k), so that every psi
// gives a positive definite table (Durbin 1960, Barndorff-Nielsen and Schou 1973).
#pragma once

#include <Eigen/Core>

#include "lmmfast/residual/table.hpp"

namespace lmmfast {

// Autocorrelations rho_0 … rho_K of partial autocorrelations tanh(psi_1) … tanh(psi_K), and their
// derivatives in rows: the recursion of Durbin and Levinson, with the derivatives carried along.
class Autocorrelations {
    using Row = Eigen::RowVectorXd;
    using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  public:
    Autocorrelations(int K, const double* psi)
        : rho(Eigen::VectorXd::Zero(K + 1)),
          d_rho(Rows::Zero(K + 1, K)),
          phi_(Eigen::VectorXd::Zero(K + 1)),
          d_phi_(Rows::Zero(K + 1, K)),
          d_variance_(Row::Zero(K)) {
        rho[0] = 1.0;
        for (int k = 1; k <= K; ++k) add_lag(k, psi[k - 1]);
    }

    Eigen::VectorXd rho;  // (K + 1,)
    Rows d_rho;           // (K + 1, K)

  private:
    void add_lag(int k, double psi) {
        const double r = std::tanh(psi);
        const int last = k - 1;  // the column of psi_k
        rho[k] = r * variance_;
        d_rho.row(k) = r * d_variance_;
        d_rho(k, last) += tanh_derivative(psi) * variance_;
        for (int j = 1; j < k; ++j) {
            rho[k] += phi_[j] * rho[k - j];
            d_rho.row(k) += phi_[j] * d_rho.row(k - j) + rho[k - j] * d_phi_.row(j);
        }
        update_phi(k, r, tanh_derivative(psi));
        d_variance_ *= tanh_derivative(psi);
        d_variance_[last] -= 2.0 * r * tanh_derivative(psi) * variance_;
        variance_ *= tanh_derivative(psi);
    }
    // phi_j <- phi_j - r phi_(k-j), phi_k <- r
    void update_phi(int k, double r, double d_r) {
        const Eigen::VectorXd phi = phi_;
        const Rows d_phi = d_phi_;
        for (int j = 1; j < k; ++j) {
            phi_[j] -= r * phi[k - j];
            d_phi_.row(j) -= r * d_phi.row(k - j);
            d_phi_(j, k - 1) -= d_r * phi[k - j];
        }
        phi_[k] = r;
        d_phi_(k, k - 1) = d_r;
    }

    Eigen::VectorXd phi_;  // coefficients of the best linear prediction from the last k - 1 levels
    Rows d_phi_;
    double variance_ = 1.0;  // of its error
    Row d_variance_;
};

struct Toeplitz {
    static constexpr const char* name = "toeplitz";

    static int n_params(int T) { return T - 1; }

    static void table(int T, int K, const double* psi, double* C, double* dC) {
        TableWriter out(T, C, dC);
        const Autocorrelations of(K, psi);
        for (int i = 0; i < T; ++i)
            for (int j = 0; j <= i; ++j) {
                out.set(i, j, of.rho[i - j]);
                for (int k = 0; k < K; ++k) out.set_derivative(k, i, j, of.d_rho(i - j, k));
            }
    }
};

}  // namespace lmmfast
