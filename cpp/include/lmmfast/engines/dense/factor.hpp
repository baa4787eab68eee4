// Vdot = L L' of some patterns at once, and what it whitens.
#pragma once

#include <vector>

#include "lmmfast/engines/dense/residual.hpp"

namespace lmmfast {

template <class Algebra>
class DenseFactor {
  public:
    using Scalar = typename Algebra::Scalar;
    using Of = ScalarOf<Scalar>;

    DenseFactor(const DenseBucket& bucket, const DenseCovariance& covariance, bool with_derivatives)
        : bucket_(bucket),
          Lambda_(covariance.Lambda),
          K_R_(with_derivatives ? n_residual_params(bucket, covariance) : 0),
          rows_(bucket, covariance),
          L_(sized(Index{bucket.n} * bucket.n)),
          d_inv_(sized(bucket.n)),
          U_(sized(Index{bucket.n} * bucket.q)),
          F_(U_),
          row_(sized(Index{K_R_} * bucket.n)),
          M_(sized(Index{K_R_} * bucket.n * bucket.n)) {}

    static std::vector<Scalar> sized(Index size) {
        return std::vector<Scalar>(static_cast<std::size_t>(size), Of::all(0.0));
    }

    // The patterns from `lane` of a pack on. Returns log|Vdot|, not finite where V is not positive definite.
    Scalar factorise(Index pack, int lane) {
        const int n = bucket_.n, q = bucket_.q;
        read_Z(pack, lane);
        rows_.begin(pack, lane);
        for (Index j = 0; j < n; ++j) {
            Scalar* V = &L_[static_cast<std::size_t>(j * n)];
            rows_.compute(static_cast<int>(j), V, K_R_ ? row_.data() : nullptr, n);
            for (Index l = 0; l <= j; ++l)
                for (int a = 0; a < q; ++a) V[l] = V[l] + F_.data()[j * q + a] * F_.data()[l * q + a];
            for (int k = 0; k < K_R_; ++k)
                for (Index l = 0; l <= j; ++l)
                    dV(k)[j * n + l] = dV(k)[l * n + j] = row_.data()[k * Index{n} + l];
        }
        const Scalar logdet = Algebra::factorise(L_.data(), d_inv_.data(), n);
        whiten(U_.data(), q);
        return logdet;
    }

    // X (n, m) <- L^-1 X
    void whiten(Scalar* X, int m) const {
        if (m > 0) Algebra::solve(L_.data(), d_inv_.data(), bucket_.n, X, m);
    }
    // M_k = L^-1 dR_k L^-T for every parameter of the residual
    void whiten_derivatives() {
        for (int k = 0; k < K_R_; ++k) Algebra::congruence(L_.data(), d_inv_.data(), bucket_.n, dV(k));
    }

    int K_R() const { return K_R_; }
    const Scalar* M(int k) const { return M_.data() + Index{k} * bucket_.n * bucket_.n; }
    const Scalar* U() const { return U_.data(); }  // L^-1 Z (n, q)

  private:
    Scalar* dV(int k) { return M_.data() + Index{k} * bucket_.n * bucket_.n; }

    // Z into the place of U, and F = Z Lambda
    void read_Z(Index pack, int lane) {
        const int q = bucket_.q;
        for (Index j = 0; j < bucket_.n; ++j) {
            Scalar *z = U_.data() + j * q, *f = F_.data() + j * q;
            for (int a = 0; a < q; ++a)
                z[a] = Of::load(bucket_.Z + ((pack * bucket_.n + j) * q + a) * bucket_.n_lanes + lane);
            for (int b = 0; b < q; ++b) {
                f[b] = Of::all(0.0);
                for (int a = 0; a < q; ++a) f[b] = f[b] + z[a] * Lambda_[a * q + b];
            }
        }
    }

    DenseBucket bucket_;
    const double* Lambda_;
    int K_R_;
    ResidualRows<Scalar> rows_;
    std::vector<Scalar> L_, d_inv_, U_, F_, row_, M_;
};

// A of one cluster of each pattern, (n, p1)
template <class Scalar>
void read_A(const DenseBucket& bucket, Index pack, Index rep, int lane, Scalar* A) {
    const Index size = Index{bucket.n} * bucket.p1;
    const double* from = bucket.A + (pack * bucket.reps + rep) * size * bucket.n_lanes + lane;
    for (Index e = 0; e < size; ++e) A[e] = ScalarOf<Scalar>::load(from + e * bucket.n_lanes);
}

}  // namespace lmmfast
