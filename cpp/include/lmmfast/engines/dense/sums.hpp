// The totals of patterns, added up one after the other.
//
// With M_k = L^-1 dV_k L^-T, Vdot = L L' and Y = L^-1 A:
//     trace_k = tr M_k,  info_kl = <M_k, M_l> / 2,  gram = Y'Y,  quad_k = Y'M_k Y,  kr_kl = Y'M_k M_l Y.
// For the entry (a, b) of vech(Ddot) M_k = u_a u_b' + u_b u_a' (u_a u_a' where a = b), u = L^-1 z, is never
// formed: G = U'U, H = U'Y and U'M_l U say all of it.
#pragma once

#include <cmath>
#include <vector>

#include "lmmfast/engines/dense/factor.hpp"

namespace lmmfast {

template <class Algebra_>
class DenseSums {
  public:
    using Algebra = Algebra_;
    using Layout = DenseTotalsLayout;

  private:
    using Scalar = typename Algebra::Scalar;
    using Of = ScalarOf<Scalar>;
    using Factor = DenseFactor<Algebra>;

  public:
    DenseSums(const DenseBucket& bucket, const DenseCovariance& covariance, const DenseTotalsLayout& layout)
        : bucket_(bucket),
          layout_(layout),
          factor_(bucket, covariance, true),
          sums_(Factor::sized(layout.size())),
          G_(Factor::sized(Index{bucket.q} * bucket.q)),
          MU_(Factor::sized(Index{bucket.n} * bucket.q)),
          UMU_(G_),
          Y_(Factor::sized(Index{bucket.n} * bucket.p1)),
          H_(Factor::sized(Index{bucket.q} * bucket.p1)),
          B_(Factor::sized(Index{bucket.n} * bucket.p1 * (layout.with_kr ? layout.K : 1))) {
        for (int a = 0; a < bucket.q; ++a)
            for (int b = a; b < bucket.q; ++b) pairs_.push_back({a, b});
    }

    // Adds clusters begin … end - 1 of the patterns from `lane` of a pack on, and with the first cluster
    // what the patterns add without A. Returns the first lane of a V that is not positive definite, or -1.
    int add(Index pack, int lane, Index begin, Index end) {
        const double* counts = bucket_.counts + pack * bucket_.n_lanes + lane;
        if (std::all_of(counts, counts + Of::width, [](double c) { return c == 0.0; })) return -1;
        const Scalar logdet = factor_.factorise(pack, lane);
        double of_lane[Of::width];
        Of::store(of_lane, logdet);
        for (int w = 0; w < Of::width; ++w)
            if (counts[w] > 0.0 && !std::isfinite(of_lane[w])) return lane + w;
        factor_.whiten_derivatives();
        if (begin == 0) add_pattern(Of::load(counts), logdet);
        for (Index rep = begin; rep < end; ++rep) add_cluster(pack, rep, lane);
        return -1;
    }

    // Over lanes; matrices of sums hold their lower triangle, of pairs k, l those of k <= l.
    void write(double* out) const {
        for (std::size_t e = 0; e < sums_.size(); ++e) out[e] = Of::sum(sums_[e]);
    }

    // The sums of each lane, (Of::width, size); none are left.
    void take(double* out) {
        double of_lane[Of::width];
        for (std::size_t e = 0; e < sums_.size(); ++e) {
            Of::store(of_lane, sums_[e]);
            for (int w = 0; w < Of::width; ++w) out[w * sums_.size() + e] = of_lane[w];
            sums_[e] = Of::all(0.0);
        }
    }

  private:
    struct Pair {
        int a, b;
        double orders() const { return a == b ? 1.0 : 2.0; }
    };

    Scalar& sum(Index at) { return sums_.data()[at]; }
    int K_D() const { return static_cast<int>(pairs_.size()); }
    Scalar G(int a, int b) const { return G_.data()[a * bucket_.q + b]; }

    void add_pattern(Scalar count, Scalar logdet) {
        const int n = bucket_.n, q = bucket_.q, K_R = factor_.K_R();
        sum(0) = sum(0) + count * logdet;
        if (q > 0) Algebra::product(factor_.U(), q, factor_.U(), q, n, G_.data());
        for (int k = 0; k < K_D(); ++k) add_random(k, count);
        for (int k = 0; k < K_R; ++k) {
            const Scalar* M = factor_.M(k);
            Scalar trace = Of::all(0.0);
            for (Index j = 0; j < n; ++j) trace = trace + M[j * n + j];
            Scalar& total = sum(layout_.trace(K_D() + k));
            total = total + count * trace;
            if (q > 0) add_mixed(k, count);
            for (int l = k; l < K_R; ++l)
                add_info(K_D() + k, K_D() + l, count, Algebra::dot(M, factor_.M(l), Index{n} * n));
        }
    }
    void add_info(int k, int l, Scalar count, Scalar product) {
        Scalar& total = sum(layout_.info(k, l));
        total = total + count * product * 0.5;
    }
    // Entry k of vech(Ddot), alone and with those after it
    void add_random(int k, Scalar count) {
        const Pair x = pairs_[static_cast<std::size_t>(k)];
        Scalar& total = sum(layout_.trace(k));
        total = total + count * G(x.a, x.b) * x.orders();
        for (int l = k; l < K_D(); ++l) {
            const Pair z = pairs_[static_cast<std::size_t>(l)];
            const Scalar both = G(x.a, z.a) * G(x.b, z.b) + G(x.a, z.b) * G(x.b, z.a);
            add_info(k, l, count, both * (0.5 * x.orders() * z.orders()));
        }
    }
    // Entries of vech(Ddot) with parameter k of the residual
    void add_mixed(int k, Scalar count) {
        const int n = bucket_.n, q = bucket_.q;
        Algebra::product(factor_.M(k), n, factor_.U(), q, n, MU_.data());
        Algebra::product(factor_.U(), q, MU_.data(), q, n, UMU_.data());
        for (int e = 0; e < K_D(); ++e) {
            const Pair x = pairs_[static_cast<std::size_t>(e)];
            add_info(e, K_D() + k, count, UMU_.data()[x.a * q + x.b] * x.orders());
        }
    }

    void add_cluster(Index pack, Index rep, int lane) {
        const int n = bucket_.n, p1 = bucket_.p1, q = bucket_.q;
        read_A(bucket_, pack, rep, lane, Y_.data());
        factor_.whiten(Y_.data(), p1);
        Algebra::add_symmetric(Y_.data(), Y_.data(), p1, n, &sum(layout_.gram()));
        if (q > 0) Algebra::product(factor_.U(), q, Y_.data(), p1, n, H_.data());
        for (int k = 0; k < K_D(); ++k) {
            const Pair x = pairs_[static_cast<std::size_t>(k)];
            add_outer(H(x.a), H(x.b), &sum(layout_.quad(k)));
            if (x.a != x.b) add_outer(H(x.b), H(x.a), &sum(layout_.quad(k)));
            if (layout_.with_kr) form_B(x, B(k));
        }
        for (int k = 0; k < factor_.K_R(); ++k) {
            Scalar* MY = layout_.with_kr ? B(K_D() + k) : B_.data();
            Algebra::product(factor_.M(k), n, Y_.data(), p1, n, MY);
            Algebra::add_symmetric(Y_.data(), MY, p1, n, &sum(layout_.quad(K_D() + k)));
        }
        if (!layout_.with_kr) return;
        for (int k = 0; k < layout_.K; ++k)
            for (int l = k; l < layout_.K; ++l)
                Algebra::product(B(k), p1, B(l), p1, n, &sum(layout_.kr(k, l)), true);
    }
    const Scalar* H(int a) const { return H_.data() + Index{a} * bucket_.p1; }
    Scalar* B(int k) { return B_.data() + Index{k} * bucket_.n * bucket_.p1; }  // M_k Y

    // out += x y', its lower triangle
    void add_outer(const Scalar* x, const Scalar* y, Scalar* out) const {
        for (Index i = 0; i < bucket_.p1; ++i)
            for (Index j = 0; j <= i; ++j) out[i * bucket_.p1 + j] = out[i * bucket_.p1 + j] + x[i] * y[j];
    }
    void form_B(const Pair& x, Scalar* out) const {
        const Scalar* U = factor_.U();
        const int q = bucket_.q, p1 = bucket_.p1;
        for (Index i = 0; i < bucket_.n; ++i)
            for (int j = 0; j < p1; ++j) {
                Scalar value = U[i * q + x.a] * H(x.b)[j];
                if (x.a != x.b) value = value + U[i * q + x.b] * H(x.a)[j];
                out[i * p1 + j] = value;
            }
    }

    DenseBucket bucket_;
    DenseTotalsLayout layout_;
    Factor factor_;
    std::vector<Pair> pairs_;
    std::vector<Scalar> sums_, G_, MU_, UMU_, Y_, H_, B_;
};

}  // namespace lmmfast
