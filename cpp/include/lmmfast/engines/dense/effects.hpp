// Random effects and whitened residuals of patterns whose V was found positive definite. Numbers of a V
// that is not are NaN.
#pragma once

#include <algorithm>
#include <vector>

#include "lmmfast/base/parallel.hpp"
#include "lmmfast/engines/dense/blocked.hpp"
#include "lmmfast/engines/dense/factor.hpp"
#include "lmmfast/engines/dense/lanes.hpp"

namespace lmmfast {

namespace detail {

// out (m,) = S x or S'x for a numeric S (m, m)
template <class Scalar>
void multiply_square(const double* S, bool transposed, int m, const Scalar* x, Scalar* out) {
    for (int a = 0; a < m; ++a) {
        out[a] = ScalarOf<Scalar>::all(0.0);
        for (int b = 0; b < m; ++b) out[a] = out[a] + x[b] * S[transposed ? b * m + a : a * m + b];
    }
}

// What is predicted for some patterns at once.
template <class Algebra>
class DensePrediction {
    using Scalar = typename Algebra::Scalar;
    using Of = ScalarOf<Scalar>;
    using Factor = DenseFactor<Algebra>;

  public:
    static constexpr int width = Of::width;

    DensePrediction(const DenseBucket& bucket, const DenseCovariance& covariance)
        : bucket_(bucket),
          Lambda_(covariance.Lambda),
          factor_(bucket, covariance, false),
          A_(Factor::sized(Index{bucket.n} * bucket.p1)),
          r_(Factor::sized(bucket.n)),
          h_(Factor::sized(bucket.q)),
          u_(h_),
          G_(Factor::sized(Index{bucket.q} * bucket.q)),
          W_(G_) {}

    // root Lambda'Z'Vdot^-1 A c of each cluster -> (n_packs, reps, q, n_lanes)
    void effects(Index pack, int lane, const double* root, const double* c, double* out) {
        const int q = bucket_.q;
        const Scalar nan_or_zero = factorise(pack, lane);
        for (Index rep = 0; rep < bucket_.reps; ++rep) {
            whiten(pack, rep, lane, c);
            if (q > 0) Algebra::product(factor_.U(), q, r_.data(), 1, bucket_.n, h_.data());
            multiply_square(Lambda_, true, q, h_.data(), u_.data());
            multiply_square(root, false, q, u_.data(), h_.data());
            write(h_.data(), q, nan_or_zero,
                  out + ((pack * bucket_.reps + rep) * q) * bucket_.n_lanes + lane);
        }
    }
    // root (I - Lambda'Z'Vdot^-1 Z Lambda) root' -> (n_packs, q, q, n_lanes)
    void covariance(Index pack, int lane, const double* root, double* out) {
        const int q = bucket_.q;
        const Scalar nan_or_zero = factorise(pack, lane);
        if (q > 0) Algebra::product(factor_.U(), q, factor_.U(), q, bucket_.n, G_.data());
        both_sides(Lambda_, true);
        for (int a = 0; a < q; ++a)
            for (int b = 0; b < q; ++b) G_[at(a, b)] = Of::all(a == b ? 1.0 : 0.0) - G_[at(a, b)];
        both_sides(root, false);
        write(G_.data(), q * q, nan_or_zero, out + pack * q * q * bucket_.n_lanes + lane);
    }
    // L^-1 A c of each cluster -> (n_packs, reps, n, n_lanes)
    void whitened(Index pack, int lane, const double* c, double* out) {
        const int n = bucket_.n;
        const Scalar nan_or_zero = factorise(pack, lane);
        for (Index rep = 0; rep < bucket_.reps; ++rep) {
            whiten(pack, rep, lane, c);
            write(r_.data(), n, nan_or_zero, out + (pack * bucket_.reps + rep) * n * bucket_.n_lanes + lane);
        }
    }

  private:
    std::size_t at(int a, int b) const { return static_cast<std::size_t>(a) * bucket_.q + b; }
    // 0, or NaN where V is not positive definite
    Scalar factorise(Index pack, int lane) { return factor_.factorise(pack, lane) * 0.0; }

    void whiten(Index pack, Index rep, int lane, const double* c) {
        read_A(bucket_, pack, rep, lane, A_.data());
        for (Index i = 0; i < bucket_.n; ++i) {
            Scalar sum = Of::all(0.0);
            for (int j = 0; j < bucket_.p1; ++j) sum = sum + A_.data()[i * bucket_.p1 + j] * c[j];
            r_.data()[i] = sum;
        }
        factor_.whiten(r_.data(), 1);
    }
    // G <- S G S', or S'G S
    void both_sides(const double* S, bool transposed) {
        const int q = bucket_.q;
        for (int pass = 0; pass < 2; ++pass) {  // the rows of W are those of G S', so W = S G = (G S')'
            for (int a = 0; a < q; ++a) multiply_square(S, transposed, q, &G_[at(a, 0)], &W_[at(a, 0)]);
            for (int a = 0; a < q; ++a)
                for (int b = 0; b < q; ++b) G_[at(a, b)] = W_[at(b, a)];
        }
    }
    void write(const Scalar* values, Index count, Scalar nan_or_zero, double* out) const {
        for (Index e = 0; e < count; ++e) Of::store(out + e * bucket_.n_lanes, values[e] + nan_or_zero);
    }

    DenseBucket bucket_;
    const double* Lambda_;
    Factor factor_;
    std::vector<Scalar> A_, r_, h_, u_, G_, W_;
};

template <class Algebra, class Predict>
void predict_in(const DenseBucket& bucket, const DenseCovariance& covariance, int n_threads,
                Interrupt& interrupt, const Predict& predict) {
    constexpr int width = DensePrediction<Algebra>::width;
    const Index n_tasks = std::min<Index>(bucket.n_packs, 64);
    parallel_for(n_tasks, n_threads, interrupt, [&](Index task) {
        DensePrediction<Algebra> prediction(bucket, covariance);
        const Index end = (task + 1) * bucket.n_packs / n_tasks;
        for (Index pack = task * bucket.n_packs / n_tasks; pack < end; ++pack) {
            if (pack % Algebra::units_between_checks == 0) interrupt.check();
            for (int lane = 0; lane < bucket.n_lanes; lane += width) predict(prediction, pack, lane);
        }
    });
}

// predict(prediction, pack, lane) for all patterns
template <class Predict>
void predict_dense(const DenseBucket& bucket, const DenseCovariance& covariance, int n_threads,
                   Interrupt& interrupt, const Predict& predict) {
    if (bucket.n_lanes == 1)
        return predict_in<BlockedAlgebra>(bucket, covariance, n_threads, interrupt, predict);
    predict_in<LaneAlgebra>(bucket, covariance, n_threads, interrupt, predict);
}

}  // namespace detail

// root Lambda'Z'Vdot^-1 A c of every cluster -> out (n_packs, reps, q, n_lanes)
inline void dense_effects(const DenseBucket& bucket, const DenseCovariance& covariance, const double* root,
                          const double* c, double* out, int n_threads, Interrupt& interrupt) {
    detail::predict_dense(
        bucket, covariance, n_threads, interrupt,
        [&](auto& prediction, Index pack, int lane) { prediction.effects(pack, lane, root, c, out); });
}

// root (I - Lambda'Z'Vdot^-1 Z Lambda) root' of every pattern -> out (n_packs, q, q, n_lanes)
inline void dense_effects_covariance(const DenseBucket& bucket, const DenseCovariance& covariance,
                                     const double* root, double* out, int n_threads, Interrupt& interrupt) {
    detail::predict_dense(
        bucket, covariance, n_threads, interrupt,
        [&](auto& prediction, Index pack, int lane) { prediction.covariance(pack, lane, root, out); });
}

// L^-1 A c of every cluster, Vdot = L L' -> out (n_packs, reps, n, n_lanes)
inline void dense_whitened(const DenseBucket& bucket, const DenseCovariance& covariance, const double* c,
                           double* out, int n_threads, Interrupt& interrupt) {
    detail::predict_dense(
        bucket, covariance, n_threads, interrupt,
        [&](auto& prediction, Index pack, int lane) { prediction.whitened(pack, lane, c, out); });
}

}  // namespace lmmfast
