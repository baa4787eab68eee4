// The sums of the moments engine, kept in lanes (few columns) or as matrix products (many columns).
#pragma once

#include <Eigen/Core>
#include <vector>

#include "lmmfast/engines/block_factor.hpp"
#include "lmmfast/totals.hpp"

namespace lmmfast {

// Where each elementary sum stands in a flat buffer. Pairs (a, b) run over a <= b.
//   logdet; G(a,b); G(a,b) G(c,d); Y'Y; H_a'H_b + H_b'H_a (H_a'H_a where a = b); on demand
//   H_a' G(b,c) H_d for a <= d. Symmetric (p1, p1) sums fill their lower triangle only.
struct MomentLayout {
    int q = 0, p1 = 0;
    bool with_kr = false;

    int K() const { return n_pairs(q); }
    Index square() const { return Index{p1} * p1; }
    Index g() const { return 1; }
    Index gg(int k, int l) const { return g() + K() + Index{k} * K() + l; }  // k <= l
    Index gram() const { return gg(K(), 0); }
    Index hh(int k) const { return gram() + square() * (1 + k); }
    Index hgh(int outer, int inner) const { return hh(K()) + square() * (Index{outer} * K() + inner); }
    Index size() const { return hh(K()) + (with_kr ? square() * K() * K() : 0); }
};

// Sums of products held as lanes; one horizontal sum at the end. For small p1.
template <int Q, int P1>
class LaneSums {
  public:
    LaneSums(int q, int p1, bool with_kr)
        : layout_{q, p1, with_kr}, sums_(static_cast<std::size_t>(layout_.size()), Lane::Zero()) {}

    void add(const BlockFactor<Q, P1>& f) {
        const int q = f.q(), p1 = f.p1();
        add_G(f);
        Lane* gram = &sums_[layout_.gram()];
        for (int j = 0; j < p1; ++j)
            for (int k = 0; k <= j; ++k) {
                Lane sum = gram[j * p1 + k];
                for (int a = 0; a < q; ++a) sum += f.Y(a)[j] * f.Y_scaled(a)[k];
                gram[j * p1 + k] = sum;
            }
        for (int a = 0; a < q; ++a) {
            add_square(&sums_[layout_.hh(pair_index(a, a, q))], f.H(a), p1);
            for (int b = a + 1; b < q; ++b)
                add_cross(&sums_[layout_.hh(pair_index(a, b, q))], f.H(a), f.H(b), p1);
        }
        if (layout_.with_kr) add_kr(f);
    }

    void write(double* out) const {
        for (std::size_t e = 0; e < sums_.size(); ++e) out[e] = sums_[e].sum();
    }

  private:
    void add_G(const BlockFactor<Q, P1>& f) {
        const int q = f.q();
        for (int a = 0; a < q; ++a)
            for (int b = a; b < q; ++b) {
                const int k = pair_index(a, b, q);
                const Lane g = f.G(a, b);
                sums_[layout_.g() + k] += g;
                for (int c = a; c < q; ++c)
                    for (int d = c == a ? b : c; d < q; ++d)
                        sums_[layout_.gg(k, pair_index(c, d, q))] += g * f.G(c, d);
            }
    }
    static void add_square(Lane* sum, const Lane* h, int p1) {
        for (int j = 0; j < p1; ++j)
            for (int k = 0; k <= j; ++k) sum[j * p1 + k] += h[j] * h[k];
    }
    static void add_cross(Lane* sum, const Lane* g, const Lane* h, int p1) {
        for (int j = 0; j < p1; ++j)
            for (int k = 0; k <= j; ++k) sum[j * p1 + k] += g[j] * h[k] + h[j] * g[k];
    }
    void add_kr(const BlockFactor<Q, P1>& f) {
        const int q = f.q(), p1 = f.p1();
        for (int a = 0; a < q; ++a)
            for (int d = a; d < q; ++d)
                for (int b = 0; b < q; ++b)
                    for (int c = b; c < q; ++c) {
                        Lane* sum = &sums_[layout_.hgh(pair_index(a, d, q), pair_index(b, c, q))];
                        for (int j = 0; j < p1; ++j) {
                            const Lane scaled = f.H(a)[j] * f.G(b, c);
                            for (int k = 0; k < p1; ++k) sum[j * p1 + k] += scaled * f.H(d)[k];
                        }
                    }
    }

    MomentLayout layout_;
    std::vector<Lane> sums_;
};

// The same sums for large p1: lanes of several blocks are stacked into (p1, width) panels and
// multiplied as matrices.
template <int Q, int P1>
class ProductSums {
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    static constexpr int panel_blocks = 8, width = panel_blocks * lanes;

  public:
    ProductSums(int q, int p1, bool with_kr)
        : layout_{q, p1, with_kr},
          g_(static_cast<std::size_t>(layout_.gram()), Lane::Zero()),
          products_(static_cast<std::size_t>(layout_.size() - layout_.gram()), 0.0),
          Y_(static_cast<std::size_t>(q), Matrix::Zero(p1, width)),
          H_(Y_),
          scaled_(Matrix::Zero(p1, width)),
          G_(with_kr ? Matrix::Zero(layout_.K(), width) : Matrix()) {}

    void add(const BlockFactor<Q, P1>& f) {
        const int q = f.q();
        for (int a = 0; a < q; ++a)
            for (int b = a; b < q; ++b) {
                const int k = pair_index(a, b, q);
                const Lane g = f.G(a, b);
                g_[layout_.g() + k] += g;
                if (layout_.with_kr) G_.row(k).template segment<lanes>(used_) = g.transpose();
                for (int c = a; c < q; ++c)
                    for (int d = c == a ? b : c; d < q; ++d)
                        g_[layout_.gg(k, pair_index(c, d, q))] += g * f.G(c, d);
            }
        for (int a = 0; a < q; ++a)
            for (int j = 0; j < layout_.p1; ++j) {
                Y_[a].row(j).template segment<lanes>(used_) = (f.Y(a)[j] * f.E_inv(a).sqrt()).transpose();
                H_[a].row(j).template segment<lanes>(used_) = f.H(a)[j].transpose();
            }
        used_ += lanes;
        if (used_ == width) multiply();
    }

    void write(double* out) {
        multiply();
        for (std::size_t e = 0; e < g_.size(); ++e) out[e] = g_[e].sum();
        std::copy(products_.begin(), products_.end(), out + layout_.gram());
        for (int a = 0; a < layout_.q; ++a)
            for (int b = a + 1; b < layout_.q; ++b) {
                Eigen::Map<Matrix> cross(out + layout_.hh(pair_index(a, b, layout_.q)), layout_.p1,
                                         layout_.p1);
                cross += cross.transpose().eval();
            }
    }

  private:
    Eigen::Map<Matrix> product(Index at) {
        return Eigen::Map<Matrix>(products_.data() + (at - layout_.gram()), layout_.p1, layout_.p1);
    }
    void multiply() {
        if (used_ == 0) return;
        const int q = layout_.q, n = used_;
        for (int a = 0; a < q; ++a) {
            product(layout_.gram()).template selfadjointView<Eigen::Lower>().rankUpdate(Y_[a].leftCols(n));
            product(layout_.hh(pair_index(a, a, q)))
                .template selfadjointView<Eigen::Lower>()
                .rankUpdate(H_[a].leftCols(n));
            for (int b = a + 1; b < q; ++b)
                product(layout_.hh(pair_index(a, b, q))).noalias() +=
                    H_[a].leftCols(n) * H_[b].leftCols(n).transpose();
        }
        if (layout_.with_kr) multiply_kr(n);
        used_ = 0;
    }
    void multiply_kr(int n) {
        const int q = layout_.q;
        for (int a = 0; a < q; ++a)
            for (int inner = 0; inner < layout_.K(); ++inner) {
                scaled_.leftCols(n).array() =
                    H_[a].leftCols(n).array().rowwise() * G_.row(inner).head(n).array();
                for (int d = a; d < q; ++d)
                    product(layout_.hgh(pair_index(a, d, q), inner)).noalias() +=
                        scaled_.leftCols(n) * H_[d].leftCols(n).transpose();
            }
    }

    MomentLayout layout_;
    std::vector<Lane> g_;
    std::vector<double> products_;
    std::vector<Matrix> Y_, H_;
    Matrix scaled_, G_;
    int used_ = 0;
};

// Elementary sums -> Totals: with E_k the symmetric basis matrix of entry k of vech(Ddot),
// tr(G E_k G E_l) and H'E_k G E_l H are sums over the one or two orders of each pair.
inline Totals assemble(const MomentLayout& layout, const double* sums, const double* perp) {
    const auto [q, p1, with_kr] = layout;
    Totals totals(q, p1, with_kr);
    struct Pair {
        int a, b;
    };
    std::vector<std::vector<Pair>> orders;
    for (int a = 0; a < q; ++a)
        for (int b = a; b < q; ++b)
            orders.push_back(a == b ? std::vector<Pair>{{a, a}} : std::vector<Pair>{{a, b}, {b, a}});
    const auto pair = [q = q](int a, int b) { return a <= b ? pair_index(a, b, q) : pair_index(b, a, q); };
    const auto gg = [&](int k, int l) { return sums[k <= l ? layout.gg(k, l) : layout.gg(l, k)]; };
    const auto mirror = [p1 = p1](const double* lower, double* full) {
        for (int j = 0; j < p1; ++j)
            for (int k = 0; k <= j; ++k) full[j * p1 + k] = full[k * p1 + j] = lower[j * p1 + k];
    };

    totals.logdet() = sums[0];
    mirror(sums + layout.gram(), totals.gram());
    for (Index e = 0; e < layout.square(); ++e) totals.gram()[e] += perp[e];
    for (int k = 0; k < layout.K(); ++k) {
        totals.trace()[k] = sums[layout.g() + k] * static_cast<double>(orders[k].size());
        mirror(sums + layout.hh(k), totals.quad(k));
        for (int l = 0; l < layout.K(); ++l) {
            double info = 0;
            for (const auto [x, y] : orders[k])
                for (const auto [z, w] : orders[l]) info += gg(pair(w, x), pair(y, z));
            totals.info()[k * layout.K() + l] = 0.5 * info;
            if (!with_kr) continue;
            double* kr = totals.kr(k, l);
            for (const auto [x, y] : orders[k])
                for (const auto [z, w] : orders[l]) {
                    const double* hgh = sums + layout.hgh(pair(x, w), pair(y, z));
                    for (int i = 0; i < p1; ++i)
                        for (int j = 0; j < p1; ++j)
                            kr[i * p1 + j] += x <= w ? hgh[i * p1 + j] : hgh[j * p1 + i];
                }
        }
    }
    return totals;
}

}  // namespace lmmfast
