// Second-order sums of patterns, seen through some columns W of combinations of those of A.
//
// With M_k = L^-1 dV_k L^-T and Y = L^-1 A, kr_kl = Y'M_k M_l Y. Most that is made of kr are traces
// tr(W'kr_kl W) = <M_k Y W, M_l Y W>: for them kr is never formed, which takes p1 times as long.
#pragma once

#include <algorithm>
#include <vector>

#include "lmmfast/engines/dense/dense.hpp"

namespace lmmfast {

// W of one trace, (p1, n_columns)
struct Columns {
    const double* values = nullptr;
    int n_columns = 0;
};

// Where the traces of K parameters stand, one (K, K) for each W.
struct ContractedLayout {
    int K = 0;
    std::vector<Columns> groups;

    Index group(Index g) const { return g * K * K; }
    Index size() const { return group(static_cast<Index>(groups.size())); }
};

template <class Algebra_>
class ContractedSums {
  public:
    using Algebra = Algebra_;
    using Layout = ContractedLayout;

  private:
    using Scalar = typename Algebra::Scalar;
    using Of = ScalarOf<Scalar>;
    using Factor = DenseFactor<Algebra>;

  public:
    ContractedSums(const DenseBucket& bucket, const DenseCovariance& covariance,
                   const ContractedLayout& layout)
        : bucket_(bucket),
          layout_(layout),
          factor_(bucket, covariance, true),
          most_columns_(columns_at_a_time(bucket.n, layout.K)),
          sums_(Factor::sized(layout.size())),
          A_(Factor::sized(Index{bucket.n} * bucket.p1)),
          Y_(Factor::sized(Index{bucket.n} * most_columns_)),
          H_(Factor::sized(Index{bucket.q} * most_columns_)),
          MY_(Y_),
          B_(Factor::sized(Index{bucket.n} * most_columns_ * layout.K)) {}

    // Adds clusters begin … end - 1 of the patterns from `lane` of a pack on. Returns the first lane of a V
    // that is not positive definite, or -1.
    int add(Index pack, int lane, Index begin, Index end) {
        const double* counts = bucket_.counts + pack * bucket_.n_lanes + lane;
        if (std::all_of(counts, counts + Of::width, [](double c) { return c == 0.0; })) return -1;
        double of_lane[Of::width];
        Of::store(of_lane, factor_.factorise(pack, lane));
        for (int w = 0; w < Of::width; ++w)
            if (counts[w] > 0.0 && !std::isfinite(of_lane[w])) return lane + w;
        factor_.whiten_derivatives();
        for (Index rep = begin; rep < end; ++rep) {
            read_A(bucket_, pack, rep, lane, A_.data());
            for (Index g = 0; g < static_cast<Index>(layout_.groups.size()); ++g) {
                const Columns& W = layout_.groups[static_cast<std::size_t>(g)];
                for (int first = 0; first < W.n_columns; first += most_columns_)
                    add_columns(W, first, std::min(most_columns_, W.n_columns - first),
                                sums_.data() + layout_.group(g));
            }
        }
        return -1;
    }

    // Over lanes; the lower triangles.
    void write(double* out) const {
        for (std::size_t e = 0; e < sums_.size(); ++e) out[e] = Of::sum(sums_[e]);
    }

  private:
    // So many that what they make fits the cache.
    static int columns_at_a_time(int n, int K) {
        constexpr Index cache = Index{1} << 19, most = 64;
        const Index each = static_cast<Index>(sizeof(Scalar)) * n * std::max(K, 1);
        return static_cast<int>(std::clamp<Index>(cache / each, 1, most));
    }

    // out += B'B with the columns vec(M_k Y) in B
    void add_columns(const Columns& W, int first, int m, Scalar* out) {
        const int n = bucket_.n, q = bucket_.q, K = layout_.K;
        combine(W, first, m);
        factor_.whiten(Y_.data(), m);
        if (q > 0) Algebra::product(factor_.U(), q, Y_.data(), m, n, H_.data());
        int k = 0;
        for (int a = 0; a < q; ++a)
            for (int b = a; b < q; ++b) form_random(a, b, m, k++);
        for (int r = 0; r < factor_.K_R(); ++r) {
            Algebra::product(factor_.M(r), n, Y_.data(), m, n, MY_.data());
            for (Index e = 0; e < Index{n} * m; ++e) B_.data()[e * K + k] = MY_.data()[e];
            ++k;
        }
        Algebra::add_symmetric(B_.data(), B_.data(), K, n * m, out);
    }
    // Y = A W
    void combine(const Columns& W, int first, int m) {
        for (Index i = 0; i < bucket_.n; ++i) {
            Scalar* y = Y_.data() + i * m;
            std::fill(y, y + m, Of::all(0.0));
            for (int a = 0; a < bucket_.p1; ++a) {
                const Scalar x = A_.data()[i * bucket_.p1 + a];
                const double* w = W.values + Index{a} * W.n_columns + first;
                for (int j = 0; j < m; ++j) y[j] = y[j] + x * w[j];
            }
        }
    }
    // vec(M_k Y) for the entry (a, b) of vech(Ddot)
    void form_random(int a, int b, int m, int k) {
        const Scalar* U = factor_.U();
        const int q = bucket_.q, K = layout_.K;
        for (Index i = 0; i < bucket_.n; ++i)
            for (int j = 0; j < m; ++j) {
                Scalar value = U[i * q + a] * H_.data()[b * m + j];
                if (a != b) value = value + U[i * q + b] * H_.data()[a * m + j];
                B_.data()[(i * m + j) * K + k] = value;
            }
    }

    DenseBucket bucket_;
    ContractedLayout layout_;
    Factor factor_;
    int most_columns_;
    std::vector<Scalar> sums_, A_, Y_, H_, MY_, B_;
};

// tr(W'kr_kl W) of parts with the same parameters, for each W (p1, n_columns): (n_groups, K, K).
inline DenseTotals dense_contracted(const std::vector<DensePart>& parts, const std::vector<Columns>& groups,
                                    int n_threads, Interrupt& interrupt) {
    const DensePart& first = parts.front();
    const ContractedLayout layout{n_pairs(first.bucket.q) + n_residual_params(first.bucket, first.covariance),
                                  groups};
    DenseTotals found = sum_dense_parts<ContractedSums>(parts, layout, n_threads, interrupt);
    for (Index g = 0; g < static_cast<Index>(groups.size()); ++g) {
        double* square = found.values.data() + layout.group(g);
        for (Index i = 0; i < layout.K; ++i)
            for (Index j = 0; j < i; ++j) square[j * layout.K + i] = square[i * layout.K + j];
    }
    return found;
}

}  // namespace lmmfast
