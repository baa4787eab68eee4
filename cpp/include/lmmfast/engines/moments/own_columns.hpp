// The moment sums where every column of Z is a column of X too, as it mostly is: the time whose slope is
// random has a fixed effect. Q'x is then a column of R, and Z'V^-1 x one of G = Z'V^-1 Z. So only the other
// columns of A, its own, are read and multiplied (docs/algorithm.md, eq. 2.18-2.19).
#pragma once

#include <vector>

#include "lmmfast/engines/moments/sums.hpp"

namespace lmmfast {

// Which columns of A are columns of Z: z_in_x (q,) says where each of those is in A.
class OwnColumns {
  public:
    OwnColumns(const Layout& layout, const int* z_in_x)
        : layout_(layout), z_of_(static_cast<std::size_t>(layout.p1), -1), own_(z_of_.size(), -1) {
        for (int c = 0; c < layout.q; ++c) z_of_[z_in_x[c]] = c;
        for (int j = 0; j < layout.p1; ++j)
            if (z_of_[j] < 0) {
                own_[j] = n_own();
                columns_.push_back(j);
                for (int a = 0; a < layout.q; ++a) places_.push_back(layout.qa(a, j) * lanes);
            }
    }
    const Layout& layout() const { return layout_; }
    int n_own() const { return static_cast<int>(columns_.size()); }
    const std::vector<int>& columns() const { return columns_; }  // (n_own,): the own ones
    // (n_own, q): where Q'x of an own column stands in a block.
    const int* places() const { return places_.data(); }
    int z_of(int j) const { return z_of_[j]; }  // -1: an own column
    int own(int j) const { return own_[j]; }    // its place among the own ones; -1: a column of Z

  private:
    Layout layout_;
    std::vector<int> z_of_, own_, columns_, places_;
};

// Where each sum stands: logdet; v; v v' (lower triangle); Y'E^-1 Y of the own columns (lower triangle),
// with v = (vech G, H) and H (q, n_own) = Z'V^-1 A.
struct OwnLayout {
    int q = 0, n_own = 0;

    int size_v() const { return n_pairs(q) + q * n_own; }
    Index v(int i) const { return 1 + i; }
    Index vv(int i, int j) const {
        return v(size_v()) + (i >= j ? Index{i} * size_v() + j : Index{j} * size_v() + i);
    }
    Index gram() const { return v(size_v()) + Index{size_v()} * size_v(); }
    Index gram(int i, int j) const { return gram() + (i >= j ? Index{i} * n_own + j : Index{j} * n_own + i); }
    Index size() const { return gram() + Index{n_own} * n_own; }
};

// The sums of own columns -> those of MomentLayout, without kr.
inline std::vector<double> all_columns(const OwnColumns& columns, const double* own) {
    const auto [q, p1] = columns.layout();
    const OwnLayout from{q, columns.n_own()};
    const MomentLayout to{q, p1};
    const int K = n_pairs(q);
    std::vector<double> out(static_cast<std::size_t>(to.size()), 0.0);
    // Place in v of (Z'V^-1 A)(a, j).
    const auto place = [&](int a, int j) {
        const int c = columns.z_of(j);
        if (c < 0) return K + a * columns.n_own() + columns.own(j);
        return a <= c ? pair_index(a, c, q) : pair_index(c, a, q);
    };
    out[0] = own[0];
    for (int k = 0; k < K; ++k) {
        out[to.g() + k] = own[from.v(k)];
        for (int l = k; l < K; ++l) out[to.gg(k, l)] = own[from.vv(k, l)];
    }
    for (int j = 0; j < p1; ++j)
        for (int k = 0; k <= j; ++k) {
            const Index at = Index{j} * p1 + k;
            if (columns.z_of(k) >= 0)
                out[to.gram() + at] = own[from.v(place(columns.z_of(k), j))];
            else if (columns.z_of(j) >= 0)
                out[to.gram() + at] = own[from.v(place(columns.z_of(j), k))];
            else
                out[to.gram() + at] = own[from.gram(columns.own(j), columns.own(k))];
            for (int a = 0; a < q; ++a)
                for (int b = a; b < q; ++b) {
                    double& sum = out[to.hh(pair_index(a, b, q)) + at];
                    sum = own[from.vv(place(a, j), place(b, k))];
                    if (a != b) sum += own[from.vv(place(b, j), place(a, k))];
                }
        }
    return out;
}

// R and Q'A of the own columns of part `s` of a block.
class OwnPart {
  public:
    OwnPart(const OwnColumns& columns, const double* block, int s)
        : q_(columns.layout().q), place_(columns.places()), data_(block + s * Pack::size) {}

    Pack R(int a, int b) const { return Pack::load(data_ + pair_index(a, b, q_) * lanes); }
    Pack QA(int a, int j) const { return Pack::load(data_ + place_[a + j * q_]); }

  private:
    int q_;
    const int* place_;
    const double* data_;
};

// Sums of OwnLayout held as packs. Q and P fix q and n_own at compile time; 0 takes them at run time.
template <int Q, int P>
class OwnSums {
    static constexpr int V = Q > 0 && P > 0 ? n_pairs(Q) + Q * P : 0;

    // v v': an item holds H in the place of Y, and G.
    struct SquareOfV {
        const Pack* item;
        int K, G;
        static constexpr bool both_ways = false;
        Pack left(int at, int j) const { return item[at + (j < K ? G + j : j - K)]; }
        Pack right(int at, int k) const { return left(at, k); }
    };

  public:
    OwnSums(int q, int n_own)
        : layout_{q, n_own}, item_{q, n_own}, sums_(static_cast<std::size_t>(layout_.size()), Pack::zero()) {}

    // Adds n items (WhitenedLayout of the own columns) and uses them up.
    void add(Pack* items, int n) {
        const int q = item_.q(), size = item_.size(), size_v = V > 0 ? V : layout_.size_v();
        const int n_own = item_.p1(), K = n_pairs(q);
        for (int a = 0; a < q; ++a)
            detail::PackTriangle<P>::add(&sums_[layout_.gram()], n_own,
                                         detail::ScaledSquare{items + item_.Y(a), items + item_.E_inv() + a},
                                         n, size);
        for (int i = 0; i < n; ++i) item_.project(items + i * size);
        const SquareOfV product{items, K, item_.G(0)};
        add_v(product, n, size_v, size);
        detail::PackTriangle<V>::add(&sums_[layout_.vv(0, 0)], size_v, product, n, size);
    }

    void write(double* out) const { detail::write_sums(sums_, out); }
    void write_lane(int lane, double* out) const { detail::write_lane(sums_, lane, out); }

  private:
    LMMFAST_FLATTEN void add_v(const SquareOfV& product, int n, int size_v, int size) {
        Pack* sum = &sums_[layout_.v(0)];
        if constexpr (V > 0) {
            Pack acc[V];
            unroll<V>([&](auto j) { acc[j] = sum[j]; });
            for (int i = 0; i < n; ++i) unroll<V>([&](auto j) { acc[j] += product.left(i * size, j); });
            unroll<V>([&](auto j) { sum[j] = acc[j]; });
        } else {
            for (int i = 0; i < n; ++i)
                for (int j = 0; j < size_v; ++j) sum[j] += product.left(i * size, j);
        }
    }

    OwnLayout layout_;
    WhitenedLayout<Q, P> item_;
    std::vector<Pack> sums_;
};

}  // namespace lmmfast
