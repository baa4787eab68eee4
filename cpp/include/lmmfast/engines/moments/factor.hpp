// The algebra of some clusters at once: factor I + R Ddot R', whiten R and Q'A, take the logarithm.
#pragma once

#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "lmmfast/base/packs.hpp"
#include "lmmfast/rows/clusters.hpp"

namespace lmmfast {

// log of a product of pivots: mantissas are multiplied, exponents added, and one logarithm ends it.
// Pivots are at least one.
class LogProduct {
  public:
    void multiply(Pack pivot) {
        product_ *= pivot;
        if (++count_ == 4) normalise();
    }
    double total() {
        double of_lane[Pack::size], sum = 0.0;
        write(of_lane);
        for (const double x : of_lane) sum += x;
        return sum;
    }
    // One logarithm per lane, (Pack::size,).
    void write(double* out) {
        normalise();
        alignas(64) double mantissa[Pack::size], exponent[Pack::size];
        product_.store(mantissa);
        exponent_.store(exponent);
        for (int lane = 0; lane < Pack::size; ++lane)
            out[lane] = exponent[lane] * std::log(2.0) + std::log(mantissa[lane]);
    }

  private:
    void normalise() {
        Pack exponent;
        product_.v = Eigen::internal::pfrexp(product_.v, exponent.v);
        exponent_ += exponent;
        count_ = 0;
    }
    Pack product_ = Pack::all(1.0), exponent_ = Pack::zero();
    int count_ = 0;
};

// Where the factor finds R and Q'A of its clusters: part `s` of a block of eight.
class BlockPart {
  public:
    BlockPart(const Layout& layout, const double* block, int s)
        : layout_(layout), data_(block + s * Pack::size) {}

    Pack R(int a, int b) const { return Pack::load(data_ + layout_.r(a, b) * lanes); }
    Pack QA(int a, int j) const { return Pack::load(data_ + layout_.qa(a, j) * lanes); }

  private:
    const Layout& layout_;
    const double* data_;
};

// What the sums are made of, for one pack of clusters, behind one another: Y (q, p1), in whose place
// H comes later; E^-1 (q,); U'E^-1 (q, q) row-major; G (q (q + 1) / 2). Short, because some of them
// have to stay in the first-level cache beside the sums.
template <int Q, int P1>
struct WhitenedLayout {
    int q_, p1_;

    constexpr int q() const { return Q > 0 ? Q : q_; }
    constexpr int p1() const { return P1 > 0 ? P1 : p1_; }
    constexpr int Y(int a) const { return a * p1(); }
    constexpr int E_inv() const { return q() * p1(); }
    constexpr int UE(int a, int k) const { return q() * p1() + (a + 1) * q() + k; }
    constexpr int G(int k) const { return q() * p1() + (q() + 1) * q() + k; }
    constexpr int size() const { return G(n_pairs(q())); }

    // Y -> H = U'E^-1 Y
    void project(Pack* item) const {
        constexpr int qmax = Q > 0 ? Q : max_q;
        for (int j = 0; j < p1(); ++j) {
            Pack y[qmax];
            for (int k = 0; k < q(); ++k) y[k] = item[Y(k) + j];
            for (int a = 0; a < q(); ++a) {
                Pack sum = item[UE(a, 0)] * y[0];
                for (int k = 1; k < q(); ++k) sum = multiply_add(item[UE(a, k)], y[k], sum);
                item[Y(a) + j] = sum;
            }
        }
    }
};

// For one pack of clusters: B = I + F F' with F = R Lambda, B = L E L' (L unit lower triangular, E
// diagonal), U = L^-1 R (q, q), Y = L^-1 Q'A (q, p1). Then V^-1 acts through U, Y and E alone:
// Z'V^-1 Z = U'E^-1 U, Z'V^-1 A = U'E^-1 Y (algorithm.md, eq. 2.4-2.8). No square roots.
// Q and P1 fix the sizes at compile time; 0 takes them from the layout. Scalar is the type of the
// entries of Lambda: double, or Pack where each cluster has its own.
template <int Q, int P1, class Scalar = double>
class BlockFactor {
    static constexpr int qmax = Q > 0 ? Q : max_q;

  public:
    BlockFactor(const Layout& layout, const Scalar* Lambda /* (q, q) row-major */)
        : layout_{layout.q, layout.p1} {
        set_Lambda(Lambda);
    }
    void set_Lambda(const Scalar* Lambda) {
        for (int k = 0; k < q() * q(); ++k) Lambda_[k] = Lambda[k];
    }

    const WhitenedLayout<Q, P1>& layout() const { return layout_; }
    int q() const { return layout_.q(); }
    int p1() const { return layout_.p1(); }
    Pack F(int a, int b) const { return F_[a * qmax + b]; }
    Pack E_inv(int a) const { return E_inv_[a]; }

    // F, L and the pivots of B.
    template <class Source>
    void factorise(const Source& source, LogProduct& det) {
        for (int a = 0; a < q(); ++a)
            for (int b = 0; b < q(); ++b) {
                Pack sum = Pack::zero();
                for (int k = a; k < q(); ++k) sum += source.R(a, k) * Lambda_[k * q() + b];
                F_[a * qmax + b] = sum;
            }
        for (int a = 0; a < q(); ++a)
            for (int b = 0; b <= a; ++b) {
                Pack sum = Pack::all(a == b ? 1.0 : 0.0);
                for (int k = 0; k < q(); ++k) sum = multiply_add(F(a, k), F(b, k), sum);
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

    // Y = L^-1 Q'A, E^-1, U'E^-1 with U = L^-1 R, G = U'E^-1 U into `out` (WhitenedLayout).
    template <class Source>
    void whiten(const Source& source, Pack* out) const {
        Pack U[qmax * qmax];
        for (int a = 0; a < q(); ++a) {
            for (int j = 0; j < p1(); ++j) {
                Pack sum = source.QA(a, j);
                for (int k = 0; k < a; ++k) sum -= L(a, k) * out[layout_.Y(k) + j];
                out[layout_.Y(a) + j] = sum;
            }
            out[layout_.E_inv() + a] = E_inv_[a];
            for (int b = 0; b < q(); ++b) {
                Pack sum = b >= a ? source.R(a, b) : Pack::zero();
                for (int k = 0; k < a; ++k) sum -= L(a, k) * U[k * qmax + b];
                U[a * qmax + b] = sum;
                out[layout_.UE(b, a)] = sum * E_inv_[a];
            }
        }
        for (int a = 0; a < q(); ++a)
            for (int b = a; b < q(); ++b) {
                Pack sum = U[a] * out[layout_.UE(b, 0)];
                for (int k = 1; k < q(); ++k) sum = multiply_add(U[k * qmax + a], out[layout_.UE(b, k)], sum);
                out[layout_.G(pair_index(a, b, q()))] = sum;
            }
    }

    // x <- B^-1 x for x (q, 1)
    void solve_B(Pack* x) const {
        for (int a = 0; a < q(); ++a)
            for (int k = 0; k < a; ++k) x[a] -= L(a, k) * x[k];
        for (int a = q(); a-- > 0;) {
            x[a] *= E_inv_[a];
            for (int k = a + 1; k < q(); ++k) x[a] -= L(k, a) * x[k];
        }
    }

  private:
    Pack L(int a, int b) const { return L_[a * qmax + b]; }

    WhitenedLayout<Q, P1> layout_;
    Scalar Lambda_[qmax * qmax];
    Pack F_[qmax * qmax], L_[qmax * qmax], LE_[qmax * qmax], E_inv_[qmax];
};

}  // namespace lmmfast
