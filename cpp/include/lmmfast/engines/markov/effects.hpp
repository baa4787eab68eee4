// Predictions of random effects, their conditional covariances and whitened residuals in O(n_i)
// (docs/markov.md, M19-M20).
#pragma once

#include <vector>

#include "lmmfast/engines/markov/markov.hpp"

namespace lmmfast {

namespace detail {

// What the rows so far tell of u = Lambda^-1 b ~ N(0, I): L (q, q) lower triangular and z (q,) with
// Var(u | rows) = (L L')^-1 and E(u | rows) = L^-T z, updated by rotations.
class SquareRootFilter {
  public:
    explicit SquareRootFilter(int q) : L_(q, q), root_(q, q), z_(q) {}

    void reset() {
        L_.setIdentity();
        z_.setZero();
    }
    bool is_finite() const { return L_.allFinite() && z_.allFinite(); }

    // A row x = F'u + e, Var(e) = 1. What is left of x is (x - E(x | rows)) / sd(x | rows). Destroys F.
    double absorb(Vector& F, double x) {
        for (Eigen::Index a = 0; a < L_.rows(); ++a) {
            const double length = std::hypot(L_(a, a), F[a]), cosine = L_(a, a) / length,
                         sine = F[a] / length;
            const auto rotate = [&](double& kept, double& row) {
                const double before = kept;
                kept = cosine * before + sine * row;
                row = cosine * row - sine * before;
            };
            for (Eigen::Index b = a; b < L_.rows(); ++b) rotate(L_(b, a), F[b]);
            rotate(z_[a], x);
        }
        return x;
    }

    // E(u | rows) (q,), in place of z.
    const Vector& mean() {
        for (Eigen::Index a = L_.rows() - 1; a >= 0; --a) {
            for (Eigen::Index b = a + 1; b < L_.rows(); ++b) z_[a] -= L_(b, a) * z_[b];
            z_[a] /= L_(a, a);
        }
        return z_;
    }

    // W (q, q) with Var(root u | rows) = W'W.
    const RowMatrix& covariance_root(const Eigen::Map<const RowMatrix>& root) {
        root_ = root.transpose();
        solve_lower(L_, root_);
        return root_;
    }

  private:
    RowMatrix L_, root_;
    Vector z_;
};

// Rows of a cluster one after the other through both filters: that of R, then that of the random effects.
class MarkovPredictor {
  public:
    MarkovPredictor(const MarkovRows& rows, const MarkovPoint& point, Index longest)
        : effects(rows.q),
          rows_(rows),
          Lambda_(Eigen::Map<const RowMatrix>(point.Lambda, rows.q, rows.q)),
          filter_(rows, point, longest, false),
          a_(rows.q),
          e_(rows.q),
          before_(rows.q),
          carried_(rows.q),
          F_(rows.q) {}

    SquareRootFilter effects;

    // c (p1,): the rows of A c are absorbed; without c zeros are. Calls each(row, whitened) in order. False
    // where V is not positive definite.
    template <class Each>
    bool run(Index i, const double* c, const Each& each) {
        if (!filter_.factorise(i)) return false;
        effects.reset();
        before_.setZero();
        carried_.setZero();
        double before = 0.0, carried = 0.0;
        for (Index j = 0; j < filter_.n_i(); ++j) {
            const Index row = rows_.ptr[i] + j;
            const MarkovStep& s = filter_.steps()[j];
            a_ = s.scale * Eigen::Map<const Vector>(rows_.Z + row * rows_.q, rows_.q);
            const double a = c ? s.scale * product(row, c) : 0.0, e = (a - before) + carried;
            e_ = (a_ - before_) + carried_;
            F_.noalias() = s.r * Lambda_.transpose().lazyProduct(e_);
            each(row, effects.absorb(F_, s.r * e));
            carried_ = s.less * a_ + s.beta * e_;
            carried = s.less * a + s.beta * e;
            before_ = a_;
            before = a;
        }
        return effects.is_finite();
    }

  private:
    const MarkovRows& rows_;
    RowMatrix Lambda_;
    MarkovFilter filter_;
    Vector a_, e_, before_, carried_, F_;  // (q,), F of Z Lambda, the others of Z

    double product(Index row, const double* c) const {
        double sum = 0.0;
        for (int b = 0; b < rows_.p1; ++b) sum += rows_.A[row * rows_.p1 + b] * c[b];
        return sum;
    }
};

// work(predictor, i) for every cluster, with memory of each thread's own; it says whether all went well.
// Returns the first cluster where it did not, or -1.
template <class Work>
Index predict_clusters(const MarkovRows& rows, const MarkovPoint& point, int n_threads, Interrupt& interrupt,
                       const Work& work) {
    const std::vector<Index> first = markov_parts(rows, 1);
    std::vector<Index> failed(first.size() - 1, -1);
    std::atomic<std::size_t> next{0};
    parallel_for(std::min<Index>(n_threads, static_cast<Index>(failed.size())), n_threads, interrupt,
                 [&](Index) {
                     MarkovPredictor predictor(rows, point, rows.longest(0, rows.m));
                     for (std::size_t k; (k = next.fetch_add(1)) < failed.size();) {
                         interrupt.check();
                         for (Index i = first[k]; i < first[k + 1] && failed[k] < 0; ++i)
                             if (!work(predictor, i)) failed[k] = i;
                     }
                 });
    for (const Index i : failed)
        if (i >= 0) return i;
    return -1;
}

}  // namespace detail

// b (m, q) = root E(u | y), u = Lambda^-1 b: root = Lambda for b itself. Returns the first cluster of which
// V is not positive definite, or -1.
inline Index markov_effects(const MarkovRows& rows, const MarkovPoint& point, const double* root,
                            const double* c, double* b, int n_threads, Interrupt& interrupt) {
    const Eigen::Map<const RowMatrix> root_(root, rows.q, rows.q);
    return detail::predict_clusters(rows, point, n_threads, interrupt, [&](auto& predictor, Index i) {
        if (!predictor.run(i, c, [](Index, double) {})) return false;
        Eigen::Map<Vector>(b + i * rows.q, rows.q).noalias() = root_.lazyProduct(predictor.effects.mean());
        return true;
    });
}

// Var(root u | y) / sigma2 (m, q, q).
inline Index markov_effects_covariance(const MarkovRows& rows, const MarkovPoint& point, const double* root,
                                       double* covariance, int n_threads, Interrupt& interrupt) {
    const Eigen::Map<const RowMatrix> root_(root, rows.q, rows.q);
    return detail::predict_clusters(rows, point, n_threads, interrupt, [&](auto& predictor, Index i) {
        if (!predictor.run(i, nullptr, [](Index, double) {})) return false;
        const RowMatrix& W = predictor.effects.covariance_root(root_);
        Eigen::Map<RowMatrix>(covariance + i * rows.q * rows.q, rows.q, rows.q).noalias() =
            W.transpose().lazyProduct(W);
        return true;
    });
}

// L^-1 (A c) (n,), Vdot_i = L L' in the order of the rows.
inline Index markov_whitened(const MarkovRows& rows, const MarkovPoint& point, const double* c, double* out,
                             int n_threads, Interrupt& interrupt) {
    return detail::predict_clusters(rows, point, n_threads, interrupt, [&](auto& predictor, Index i) {
        return predictor.run(i, c, [&](Index row, double whitened) { out[row] = whitened; });
    });
}

}  // namespace lmmfast
