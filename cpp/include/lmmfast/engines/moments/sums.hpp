// The sums of the moments engine, kept in packs (few columns) or as matrix products (many columns).
#pragma once

#include <Eigen/Core>
#include <vector>

#include "lmmfast/engines/moments/factor.hpp"
#include "lmmfast/engines/moments/pack_triangle.hpp"
#include "lmmfast/engines/totals.hpp"

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

// Packs of clusters whose products are added in one go: each sum is then loaded and stored once.
inline constexpr int batch_packs = 4;

// Sums of products held as packs; one horizontal sum at the end. For small p1.
template <int Q, int P1>
class PackSums {
    using Triangle = detail::PackTriangle<P1>;

  public:
    PackSums(int q, int p1, bool with_kr)
        : layout_{q, p1, with_kr},
          item_{q, p1},
          sums_(static_cast<std::size_t>(layout_.size()), Pack::zero()) {}

    // Adds n items (WhitenedLayout) and uses them up.
    void add(Pack* items, int n) {
        const int q = item_.q(), p1 = item_.p1(), size = item_.size();
        add_G(items, n);
        for (int a = 0; a < q; ++a)
            Triangle::add(&sums_[layout_.gram()], p1,
                          detail::ScaledSquare{items + item_.Y(a), items + item_.E_inv() + a}, n, size);
        for (int i = 0; i < n; ++i) item_.project(items + i * size);
        for (int a = 0; a < q; ++a)
            for (int b = a; b < q; ++b) {
                Pack* sum = &sums_[layout_.hh(pair_index(a, b, q))];
                if (a == b)
                    Triangle::add(sum, p1, detail::SquareOf{items + item_.Y(a)}, n, size);
                else
                    Triangle::add(sum, p1, detail::BothWays{items + item_.Y(a), items + item_.Y(b)}, n, size);
            }
        if (layout_.with_kr) add_kr(items, n, p1);
    }

    std::size_t size() const { return sums_.size(); }
    void write(double* out) const { detail::write_sums(sums_, out); }
    void write_lane(int lane, double* out) const { detail::write_lane(sums_, lane, out); }

  private:
    void add_G(const Pack* items, int n) {
        constexpr int K_max = n_pairs(Q > 0 ? Q : max_q);
        const int K = n_pairs(item_.q());
        Pack G[K_max];
        for (int i = 0; i < n; ++i) {
            for (int k = 0; k < K; ++k) G[k] = items[i * item_.size() + item_.G(k)];
            for (int k = 0; k < K; ++k) {
                sums_[layout_.g() + k] += G[k];
                for (int l = k; l < K; ++l) {
                    Pack& sum = sums_[layout_.gg(k, l)];
                    sum = multiply_add(G[k], G[l], sum);
                }
            }
        }
    }

    void add_kr(const Pack* items, int n, int p1) {
        const int q = item_.q(), K = n_pairs(q);
        for (int i = 0; i < n; ++i) {
            const Pack* item = items + i * item_.size();
            for (int a = 0; a < q; ++a)
                for (int d = a; d < q; ++d)
                    for (int k = 0; k < K; ++k) {
                        Pack* sum = &sums_[layout_.hgh(pair_index(a, d, q), k)];
                        for (int j = 0; j < p1; ++j) {
                            const Pack scaled = item[item_.Y(a) + j] * item[item_.G(k)];
                            for (int l = 0; l < p1; ++l)
                                sum[j * p1 + l] = multiply_add(scaled, item[item_.Y(d) + l], sum[j * p1 + l]);
                        }
                    }
        }
    }

    MomentLayout layout_;
    WhitenedLayout<Q, P1> item_;
    std::vector<Pack> sums_;
};

// The same sums for large p1: items are stacked into (p1, width) panels and multiplied as matrices.
template <int Q>
class ProductSums {
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    static constexpr int width = 128;

  public:
    ProductSums(int q, int p1, bool with_kr)
        : layout_{q, p1, with_kr},
          item_{q, p1},
          g_(static_cast<std::size_t>(layout_.gram()), Pack::zero()),
          products_(static_cast<std::size_t>(layout_.size() - layout_.gram()), 0.0),
          Y_(static_cast<std::size_t>(q), Matrix::Zero(p1, width)),
          H_(Y_),
          scaled_(Matrix::Zero(p1, width)),
          G_(with_kr ? Matrix::Zero(layout_.K(), width) : Matrix()) {}

    void add(Pack* items, int n) {
        for (int i = 0; i < n; ++i) add(items + i * item_.size());
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
    void add(Pack* item) {
        const int q = item_.q();
        for (int k = 0; k < layout_.K(); ++k) {
            const Pack g = item[item_.G(k)];
            g_[layout_.g() + k] += g;
            if (layout_.with_kr) stack(G_, k, g);
            for (int l = k; l < layout_.K(); ++l)
                g_[layout_.gg(k, l)] = multiply_add(g, item[item_.G(l)], g_[layout_.gg(k, l)]);
        }
        for (int a = 0; a < q; ++a) {
            const Pack root = item[item_.E_inv() + a].sqrt();
            for (int j = 0; j < layout_.p1; ++j) stack(Y_[a], j, item[item_.Y(a) + j] * root);
        }
        item_.project(item);
        for (int a = 0; a < q; ++a)
            for (int j = 0; j < layout_.p1; ++j) stack(H_[a], j, item[item_.Y(a) + j]);
        used_ += Pack::size;
        if (used_ == width) multiply();
    }
    void stack(Matrix& panel, int row, Pack values) {
        Eigen::internal::pstoreu(&panel(row, used_), values.v);
    }
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
    WhitenedLayout<Q, 0> item_;
    std::vector<Pack> g_;
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
