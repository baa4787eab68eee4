// Structures of D that are linear in their natural parameters, block-diagonal over the terms.
//
// Root parameters phi are free of bounds: D(phi) = Lambda(phi) Lambda(phi)', Lambda linear in phi, and a
// singular D is a stationary point inside (docs/algorithm.md, section 4). Everything about them is a few
// constants, kept as lists of the entries that are not zero.
#pragma once

#include <stdexcept>
#include <vector>

#include "lmmfast/base/small_matrix.hpp"

namespace lmmfast {

enum class Structure { unstructured, diagonal, identity, compound_symmetry };

// The random effects of one term: q columns of Z.
struct RandomTerm {
    Structure structure = Structure::unstructured;
    int q = 1;

    int n_params() const {
        switch (structure) {
            case Structure::unstructured:
                return n_pairs(q);
            case Structure::diagonal:
                return q;
            case Structure::identity:
                return 1;
            default:
                return 2;
        }
    }
};

class RandomCovariance {
  public:
    explicit RandomCovariance(std::vector<RandomTerm> terms) : terms_(std::move(terms)) {
        for (const RandomTerm& term : terms_) {
            if (term.q < 1 || (term.structure == Structure::compound_symmetry && term.q < 2))
                throw std::invalid_argument("too few columns in a random-effects term");
            q_ += term.q;
            n_params_ += term.n_params();
        }
        if (terms_.empty() || q_ > max_q) throw std::invalid_argument("too few or too many random effects");
        int column = 0, param = 0;
        for (const RandomTerm& term : terms_) {
            list_term(term, column, param);
            column += term.q;
            param += term.n_params();
        }
    }

    const std::vector<RandomTerm>& terms() const { return terms_; }
    int q() const { return q_; }
    int n_params() const { return n_params_; }
    int n_theta() const { return n_pairs(q_); }

    // Root of D, (q, q).
    void Lambda(const Vector& phi, RowMatrix& out) const {
        out.setZero(q_, q_);
        for (const auto& [a, i, j, value] : root_) out(i, j) += phi[a] * value;
    }

    // Derivatives of vech(D) by phi, (n_params, K).
    void jacobian(const Vector& phi, RowMatrix& out) const {
        out.setZero(n_params_, n_theta());
        for (const auto& [a, b, k, value] : curvature_) out(a, k) += phi[b] * value;
    }

    // Calls each(a, b, k, d2 D_k / dphi_a dphi_b) where that is not zero; it does not depend on phi.
    template <class Each>
    void curvature(const Each& each) const {
        for (const auto& [a, b, k, value] : curvature_) each(a, b, k, value);
    }

    // Calls each(j, k, dD_k / dtau_j) where that is not zero; it does not depend on D.
    template <class Each>
    void natural_jacobian(const Each& each) const {
        for (const auto& [j, k, value] : natural_) each(j, k, value);
    }

    // Natural parameters (n_params,) of D (q, q).
    Vector natural(const RowMatrix& D) const {
        Vector tau(n_params_);
        each_term([&](const RandomTerm& term, int column, int param) {
            const auto block = D.block(column, column, term.q, term.q);
            switch (term.structure) {
                case Structure::unstructured:
                    for (int b = 0, k = param; b < term.q; ++b)
                        for (int a = b; a < term.q; ++a) tau[k++] = block(a, b);
                    break;
                case Structure::diagonal:
                    tau.segment(param, term.q) = block.diagonal();
                    break;
                case Structure::identity:
                    tau[param] = block.trace() / term.q;
                    break;
                case Structure::compound_symmetry:
                    tau[param] = block.trace() / term.q;
                    tau[param + 1] = (block.sum() - block.trace()) / (term.q * (term.q - 1));
                    break;
            }
        });
        return tau;
    }

    // D (q, q), not necessarily positive definite.
    RowMatrix from_natural(const Vector& tau) const {
        Vector vech_D = Vector::Zero(n_theta());
        for (const auto& [j, k, value] : natural_) vech_D[k] += tau[j] * value;
        RowMatrix D(q_, q_);
        for (int b = 0, k = 0; b < q_; ++b)
            for (int a = b; a < q_; ++a) D(a, b) = D(b, a) = vech_D[k++];
        return D;
    }

    // Root parameters of the member of the structure nearest to a positive semidefinite D.
    Vector phi(const RowMatrix& D) const {
        Vector out = natural(D);
        each_term([&](const RandomTerm& term, int column, int param) {
            if (term.structure == Structure::unstructured) {
                const RowMatrix root = psd_root(D.block(column, column, term.q, term.q));
                for (int b = 0, k = param; b < term.q; ++b)
                    for (int a = b; a < term.q; ++a) out[k++] = root(a, b);
                return;
            }
            if (term.structure == Structure::compound_symmetry) {
                const double variance = out[param], covariance = out[param + 1];
                out[param] = variance - covariance;
                out[param + 1] = variance + (term.q - 1) * covariance;
            }
            for (int k = 0; k < term.n_params(); ++k)
                out[param + k] = std::sqrt(std::max(out[param + k], 0.0));
        });
        return out;
    }

    // D in whose neighbourhood the likelihood of a small data set may have another maximum besides the
    // one near I: of few rows nearly all variation can be between the clusters.
    RowMatrix other_start() const { return 100.0 * RowMatrix::Identity(q_, q_); }

    // Calls each(term, its first column of Z, its first parameter).
    template <class Each>
    void each_term(const Each& each) const {
        int column = 0, param = 0;
        for (const RandomTerm& term : terms_) {
            each(term, column, param);
            column += term.q;
            param += term.n_params();
        }
    }

  private:
    struct RootEntry {
        int a, i, j;
        double value;
    };
    struct CurvatureEntry {
        int a, b, k;
        double value;
    };
    struct NaturalEntry {
        int j, k;
        double value;
    };

    int pair(int i, int j) const { return pair_index(std::min(i, j), std::max(i, j), q_); }

    void list_term(const RandomTerm& term, int column, int param) {
        const int q = term.q;
        const auto variances = [&](int j, double value) {
            for (int i = 0; i < q; ++i) natural_.push_back({j, pair(column + i, column + i), value});
        };
        switch (term.structure) {
            case Structure::unstructured:
                list_triangle(q, column, param);
                break;
            case Structure::diagonal:
                for (int i = 0; i < q; ++i) {
                    const int k = pair(column + i, column + i);
                    root_.push_back({param + i, column + i, column + i, 1.0});
                    curvature_.push_back({param + i, param + i, k, 2.0});
                    natural_.push_back({param + i, k, 1.0});
                }
                break;
            case Structure::identity:
                list_projector(q, column, param, 1.0, 0.0);
                variances(param, 1.0);
                break;
            case Structure::compound_symmetry:
                list_projector(q, column, param, 1.0, -1.0 / q);
                list_projector(q, column, param + 1, 0.0, 1.0 / q);
                variances(param, 1.0);
                for (int j = 0; j < q; ++j)
                    for (int i = j + 1; i < q; ++i)
                        natural_.push_back({param + 1, pair(column + i, column + j), 1.0});
                break;
        }
    }

    // Lambda lower triangular: D = sum over pairs in the same column of Lambda.
    void list_triangle(int q, int column, int param) {
        for (int b = 0; b < q; ++b)
            for (int i = b; i < q; ++i) {
                const int a = param + pair_index(b, i, q);
                root_.push_back({a, column + i, column + b, 1.0});
                natural_.push_back({a, pair(column + i, column + b), 1.0});
                for (int j = b; j < q; ++j)
                    curvature_.push_back(
                        {a, param + pair_index(b, j, q), pair(column + i, column + j), i == j ? 2.0 : 1.0});
            }
    }

    // A parameter that multiplies the projector diagonal I + all 11' in Lambda, its square in D.
    void list_projector(int q, int column, int param, double diagonal, double all) {
        for (int i = 0; i < q; ++i)
            for (int j = 0; j < q; ++j) {
                const double value = (i == j ? diagonal : 0.0) + all;
                if (value == 0) continue;
                root_.push_back({param, column + i, column + j, value});
                if (i >= j) curvature_.push_back({param, param, pair(column + i, column + j), 2 * value});
            }
    }

    std::vector<RandomTerm> terms_;
    int q_ = 0, n_params_ = 0;
    std::vector<RootEntry> root_;
    std::vector<CurvatureEntry> curvature_;
    std::vector<NaturalEntry> natural_;
};

}  // namespace lmmfast
