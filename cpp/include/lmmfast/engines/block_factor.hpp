// The algebra of eight clusters at once: factor I + R Ddot R', whiten R and Q'A, take the logarithm.
#pragma once

#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "lmmfast/clusters.hpp"

namespace lmmfast {

// log of a product of pivots, one logarithm per many of them. Pivots are at least one.
class LogProduct {
  public:
    void multiply(const Lane& pivot) {
        product_ *= pivot;
        if (++count_ == 4) flush();
    }
    double total() {
        flush();
        return sum_.sum();
    }

  private:
    void flush() {
        sum_ += product_.log();
        product_.setOnes();
        count_ = 0;
    }
    Lane product_ = Lane::Ones(), sum_ = Lane::Zero();
    int count_ = 0;
};

// For one block: B = I + F F' with F = R Lambda, B = L E L' (L unit lower triangular, E diagonal),
// U = L^-1 R (q, q), Y = L^-1 Q'A (q, p1). Then V^-1 acts through U, Y and E alone:
// Z'V^-1 Z = U'E^-1 U, Z'V^-1 A = U'E^-1 Y (algorithm.md, eq. 2.4-2.8). No square roots.
// Q and P1 fix the sizes at compile time; 0 takes them from the layout.
template <int Q, int P1>
class BlockFactor {
    static constexpr int qmax = Q > 0 ? Q : max_q;

  public:
    BlockFactor(const Layout& layout, const double* Lambda /* (q, q) row-major */) : layout_(layout) {
        const auto size = static_cast<std::size_t>(q()) * p1();
        if constexpr (P1 == 0) {
            Y_.resize(size);
            Y_scaled_.resize(size);
            H_.resize(size);
        }
        for (int k = 0; k < q() * q(); ++k) Lambda_[k] = Lambda[k];
    }

    int q() const { return Q > 0 ? Q : layout_.q; }
    int p1() const { return P1 > 0 ? P1 : layout_.p1; }
    const Lane& U(int a, int b) const { return U_[a * qmax + b]; }
    const Lane& F(int a, int b) const { return F_[a * qmax + b]; }
    const Lane* Y(int a) const { return &Y_[static_cast<std::size_t>(a) * p1()]; }
    const Lane* Y_scaled(int a) const { return &Y_scaled_[static_cast<std::size_t>(a) * p1()]; }
    const Lane& E_inv(int a) const { return E_inv_[a]; }
    const Lane* H(int a) const { return &H_[static_cast<std::size_t>(a) * p1()]; }
    const Lane& G(int a, int b) const { return G_[a <= b ? a * qmax + b : b * qmax + a]; }

    // F, L and the pivots of B.
    void factorise(const double* block, LogProduct& det) {
        for (int a = 0; a < q(); ++a)
            for (int b = 0; b < q(); ++b) {
                Lane sum = Lane::Zero();
                for (int k = a; k < q(); ++k) sum += R(block, a, k) * Lambda_[k * q() + b];
                F_[a * qmax + b] = sum;
            }
        for (int a = 0; a < q(); ++a)
            for (int b = 0; b <= a; ++b) {
                Lane sum = Lane::Constant(a == b ? 1.0 : 0.0);
                for (int k = 0; k < q(); ++k) sum += F(a, k) * F(b, k);
                for (int k = 0; k < b; ++k) sum -= LE_[a * qmax + k] * L(b, k);
                if (a == b) {
                    det.multiply(sum);
                    E_inv_[a] = sum.inverse();
                } else {
                    LE_[a * qmax + b] = sum;
                    L_[a * qmax + b] = sum * E_inv_[b];
                }
            }
    }

    // Y = L^-1 Q'A and E^-1 Y
    void whiten_A(const double* block) {
        for (int a = 0; a < q(); ++a)
            for (int j = 0; j < p1(); ++j) {
                Lane sum = ConstLaneMap(block + layout_.qa(a, j) * lanes);
                for (int k = 0; k < a; ++k) sum -= L(a, k) * Y_[k * p1() + j];
                Y_[a * p1() + j] = sum;
                Y_scaled_[a * p1() + j] = sum * E_inv_[a];
            }
    }

    // U = L^-1 R, G = U'E^-1 U, H = U'E^-1 Y
    void whiten_Z(const double* block) {
        for (int a = 0; a < q(); ++a)
            for (int b = 0; b < q(); ++b) {
                Lane sum = b >= a ? Lane(R(block, a, b)) : Lane(Lane::Zero());
                for (int k = 0; k < a; ++k) sum -= L(a, k) * U(k, b);
                U_[a * qmax + b] = sum;
            }
        for (int a = 0; a < q(); ++a)
            for (int b = a; b < q(); ++b) {
                Lane sum = U(0, a) * (U(0, b) * E_inv_[0]);
                for (int k = 1; k < q(); ++k) sum += U(k, a) * (U(k, b) * E_inv_[k]);
                G_[a * qmax + b] = sum;
            }
        for (int a = 0; a < q(); ++a)
            for (int j = 0; j < p1(); ++j) {
                Lane sum = U(0, a) * Y_scaled_[j];
                for (int k = 1; k < q(); ++k) sum += U(k, a) * Y_scaled_[k * p1() + j];
                H_[a * p1() + j] = sum;
            }
    }

    // x <- B^-1 x for x (q, 1)
    void solve_B(Lane* x) const {
        for (int a = 0; a < q(); ++a)
            for (int k = 0; k < a; ++k) x[a] -= L(a, k) * x[k];
        for (int a = q(); a-- > 0;) {
            x[a] *= E_inv_[a];
            for (int k = a + 1; k < q(); ++k) x[a] -= L(k, a) * x[k];
        }
    }

  private:
    ConstLaneMap R(const double* block, int a, int b) const {
        return ConstLaneMap(block + layout_.r(a, b) * lanes);
    }
    const Lane& L(int a, int b) const { return L_[a * qmax + b]; }

    Layout layout_;
    double Lambda_[qmax * qmax];
    Lane F_[qmax * qmax], L_[qmax * qmax], LE_[qmax * qmax], E_inv_[qmax], U_[qmax * qmax], G_[qmax * qmax];
    using Panel = std::conditional_t<(P1 > 0), std::array<Lane, qmax * P1>, std::vector<Lane>>;
    Panel Y_, Y_scaled_, H_;
};

}  // namespace lmmfast
