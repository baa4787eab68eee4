// Quadratic forms of residuals by level, and what they are expected to be: equations for a start of D.
#pragma once

#include "lmmfast/engines/crossed/system.hpp"

namespace lmmfast {

// With u = Z'W r and R_j = (G_jj + kappa_f)^-1 for level j of factor f, where r = sum of Z_g b_g + eps:
// sum over j of E R_j u_j u_j' R_j' = sum over g and its levels k of R_j G_jk D_g G_kj R_j' + sigma2 R_j G_jj
// R_j'.
struct CrossedMoments {
    RowMatrix squares, noise;  // (q, q): the left side, and the factor of sigma2
    RowMatrix factors;         // (q q, q q): entry (a, b) of the left side by entry (c, d) of D

    explicit CrossedMoments(Index q)
        : squares(RowMatrix::Zero(q, q)),
          noise(RowMatrix::Zero(q, q)),
          factors(RowMatrix::Zero(q * q, q * q)) {}
};

namespace detail {

// factors += the outer square of X (q_f, q_g) = R_j G_jk, at the columns of the two factors.
inline void add_square(const CrossedFactor& f, const CrossedFactor& g, const double* X, Index q,
                       CrossedMoments& moments) {
    const int q_f = f.q(), q_g = g.q();
    for (int a = 0; a < q_f; ++a)
        for (int b = 0; b < q_f; ++b) {
            double* out =
                moments.factors.data() +
                (f.columns[static_cast<std::size_t>(a)] * q + f.columns[static_cast<std::size_t>(b)]) * q * q;
            for (int c = 0; c < q_g; ++c)
                for (int d = 0; d < q_g; ++d)
                    out[g.columns[static_cast<std::size_t>(c)] * q +
                        g.columns[static_cast<std::size_t>(d)]] += X[a * q_g + c] * X[b * q_g + d];
        }
}

// X (q_f, r) = R (q_f, q_f) Y, where entry (a, c) of Y lies at Y[a * row_step + c * column_step].
inline void multiply(const double* R, const double* Y, Index row_step, Index column_step, int q_f, int r,
                     double* X) {
    for (int a = 0; a < q_f; ++a)
        for (int c = 0; c < r; ++c) {
            double sum = 0.0;
            for (int b = 0; b < q_f; ++b) sum += R[a * q_f + b] * Y[b * row_step + c * column_step];
            X[a * r + c] = sum;
        }
}

}  // namespace detail

// u (N,); kappa (q, q), positive definite for each factor.
inline CrossedMoments crossed_moments(const CrossedSystem& s, const double* u,
                                      Eigen::Ref<const RowMatrix> kappa) {
    const Index q = kappa.rows();
    CrossedMoments out(q);
    std::vector<double> R(static_cast<std::size_t>(s.n_diag()));
    double X[max_q * max_q], y[max_q];
    for (Index k = 0; k < s.n_nodes(); ++k) {
        const CrossedFactor& f = s.factor(s.factor_of(k));
        const int own = f.q();
        Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor, max_q, max_q> regular(own,
                                                                                                     own);
        for (int a = 0; a < own; ++a)
            for (int b = 0; b < own; ++b)
                regular(a, b) = s.G_diag(k)[a * own + b] + kappa(f.columns[static_cast<std::size_t>(a)],
                                                                 f.columns[static_cast<std::size_t>(b)]);
        double* R_k = R.data() + s.diag(k);
        Eigen::Map<RowMatrix>(R_k, own, own) = regular.inverse();
        detail::multiply(R_k, s.G_diag(k), own, 1, own, own, X);
        detail::add_square(f, f, X, q, out);
        detail::multiply(R_k, u + s.offset(k), 1, 1, own, 1, y);
        for (int a = 0; a < own; ++a)
            for (int b = 0; b < own; ++b) {
                const int row = f.columns[static_cast<std::size_t>(a)],
                          column = f.columns[static_cast<std::size_t>(b)];
                out.squares(row, column) += y[a] * y[b];
                for (int c = 0; c < own; ++c) out.noise(row, column) += X[a * own + c] * R_k[b * own + c];
            }
    }
    for (Index k = 0; k < s.n_nodes(); ++k) {
        const CrossedFactor& f = s.factor(s.factor_of(k));
        const Index length = s.G().length(k);
        for (Index p = 0; p < length;) {
            const Index other = s.node_of(s.G().rows(k)[p]);
            const CrossedFactor& g = s.factor(s.factor_of(other));
            const double* G = s.G_values(k) + p;  // entry (c of other, a of k) at a * length + c
            detail::multiply(R.data() + s.diag(k), G, length, 1, f.q(), g.q(), X);
            detail::add_square(f, g, X, q, out);
            detail::multiply(R.data() + s.diag(other), G, 1, length, g.q(), f.q(), X);
            detail::add_square(g, f, X, q, out);
            p += g.q();
        }
    }
    return out;
}

}  // namespace lmmfast
