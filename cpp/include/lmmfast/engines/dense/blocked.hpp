// The algebra of one large pattern after the other: Eigen's blocked factorisation, solves and products of
// row-major matrices.
#pragma once

#include <Eigen/Cholesky>
#include <limits>

#include "lmmfast/base/lanes.hpp"  // before Eigen, which it tells not to use fast square roots
#include "lmmfast/base/small_matrix.hpp"

namespace lmmfast {

class BlockedAlgebra {
    using Matrix = Eigen::Map<RowMatrix>;
    using ConstMatrix = Eigen::Map<const RowMatrix>;

  public:
    using Scalar = double;
    static constexpr Index units_between_checks = 1;

    // V = L L' of its lower triangle, in whose place L comes. Returns log|V|, NaN where V is not positive
    // definite.
    static double factorise(double* V, double*, int n) {
        Eigen::Ref<RowMatrix> of(Matrix(V, n, n));
        const Eigen::LLT<Eigen::Ref<RowMatrix>> llt(of);
        if (llt.info() != Eigen::Success) return std::numeric_limits<double>::quiet_NaN();
        double det = 0.0;
        for (Index k = 0; k < n; ++k) det += 2.0 * std::log(V[k * n + k]);
        return det;
    }

    // X (n, m) <- L^-1 X
    static void solve(const double* L, const double*, int n, double* X, int m) {
        Matrix of(X, n, m);
        ConstMatrix(L, n, n).triangularView<Eigen::Lower>().solveInPlace(of);
    }

    // X <- L^-1 X L^-T for symmetric X (n, n)
    static void congruence(const double* L, const double* unused, int n, double* X) {
        solve(L, unused, n, X, n);
        Matrix of(X, n, n);
        ConstMatrix(L, n, n).transpose().triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(of);
    }

    // out (a, b) = X'Y, or added to it, for X (depth, a) and Y (depth, b)
    static void product(const double* X, int a, const double* Y, int b, int depth, double* out,
                        bool accumulate = false) {
        Matrix sum(out, a, b);
        if (!accumulate) sum.setZero();
        sum.noalias() += ConstMatrix(X, depth, a).transpose() * ConstMatrix(Y, depth, b);
    }

    // out (a, a) += X'Y, which is symmetric
    static void add_symmetric(const double* X, const double* Y, int a, int depth, double* out) {
        product(X, a, Y, a, depth, out, true);
    }

    static double dot(const double* a, const double* b, Index count) {
        return Eigen::Map<const Vector>(a, count).dot(Eigen::Map<const Vector>(b, count));
    }
};

}  // namespace lmmfast
