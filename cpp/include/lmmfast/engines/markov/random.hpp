// From cross-products of whitened rows to the totals of V = Z Ddot Z' + R (docs/markov.md, M12-M18).
#pragma once

#include <cmath>
#include <vector>

#include "lmmfast/engines/markov/information.hpp"
#include "lmmfast/engines/markov/layout.hpp"
#include "lmmfast/engines/markov/whitened.hpp"

namespace lmmfast {

// What the rows of a cluster have to say, all in the basis Y = [Q A_perp] of its whitened rows, with
// dR_k = L (N_k + N_k') L' and U_k = (N_k + N_k') Y.
struct MarkovProducts {
    RowMatrix A_perp;           // A_perp'A_perp (p1, p1)
    std::vector<RowMatrix> YU;  // Y'U_k (c, c)
    std::vector<RowMatrix> UU;  // U_k'U_l (c, c), or without kr its block of Q only; l <= k

    MarkovProducts(int q, int p1, int K_R, bool with_kr) : A_perp(p1, p1) {
        const int c = q + p1, u = with_kr ? c : q;
        YU.assign(static_cast<std::size_t>(K_R), RowMatrix::Zero(c, c));
        UU.assign(static_cast<std::size_t>(n_pairs(K_R)), RowMatrix::Zero(u, u));
    }
    static std::size_t pair(int k, int l) { return static_cast<std::size_t>(k * (k + 1) / 2 + l); }
};

// Adds the totals of one cluster after another to a flat buffer. Nothing is allocated on the way.
class MarkovSums {
  public:
    MarkovSums(const MarkovLayout& layout, const double* Lambda)
        : layout_(layout),
          Lambda_(Eigen::Map<const RowMatrix>(Lambda, layout.q, layout.q)),
          F_(layout.q, layout.q),
          B_(layout.q, layout.q),
          inverse_(layout.q, layout.q),
          T_Z_(layout.q, layout.q),
          F_Q_(layout.q, layout.q),
          G_(layout.q, layout.q),
          square_(layout.q, layout.q),
          T_A_(layout.q, layout.p1),
          H_(layout.q, layout.p1),
          wide_(layout.q, layout.p1) {
        const auto K_R = static_cast<std::size_t>(layout.K_R);
        S_.assign(K_R, RowMatrix(layout.q, layout.p1));
        F_YU_.assign(K_R, RowMatrix(layout.q, layout.q));
        ZR_Z_.assign(K_R, RowMatrix(layout.q, layout.q));
        ZR_A_.assign(K_R, RowMatrix(layout.q, layout.p1));
    }

    // False where V is not finite.
    bool add(double logdet_R, const MarkovInformation& info_R, const WhitenedRows& rows,
             const MarkovProducts& products, double* out) {
        out_ = out;
        double logdet = logdet_R;
        if (layout_.q > 0 && !factorise(rows, logdet)) return false;
        if (!std::isfinite(logdet)) return false;
        out_[0] += logdet;
        gram() += products.A_perp;
        if (layout_.q > 0) gram().noalias() += rows.QA.transpose().lazyProduct(T_A_);
        for (int k = 0; k < layout_.K_R; ++k) add_residual(k, info_R, products);
        for (int k = 0; k < layout_.K_R; ++k)
            for (int l = 0; l <= k; ++l) add_residual_pair(k, l, info_R, products);
        add_random();
        return true;
    }

  private:
    using Out = Eigen::Map<RowMatrix>;
    MarkovLayout layout_;
    double* out_ = nullptr;  // MarkovLayout
    RowMatrix Lambda_;
    RowMatrix F_, B_, inverse_;
    RowMatrix T_Z_, F_Q_, G_, square_;    // (q, q)
    RowMatrix T_A_, H_, wide_;            // (q, p1)
    std::vector<RowMatrix> S_, F_YU_;     // by k: (q, p1), (q, q)
    std::vector<RowMatrix> ZR_Z_, ZR_A_;  // by k: Z'V^-1 dR_k V^-1 [Z A]

    Out block(Index at) { return {out_ + at, layout_.p1, layout_.p1}; }
    Out gram() { return block(layout_.gram()); }
    Out quad(int k) { return block(layout_.quad(k)); }
    Out kr(int k, int l) { return block(layout_.kr(k, l)); }
    double& info(int k, int l) { return out_[layout_.info(k, l)]; }
    int of_R(int k) const { return layout_.K_D() + k; }

    // L^-1 V L^-T = I - Q Q' + Q B Q', B = I + F F': T takes Y to L' V^-1 [Z A], G = Z'V^-1 Z, H = Z'V^-1 A.
    bool factorise(const WhitenedRows& rows, double& logdet) {
        F_.noalias() = rows.R_Z.lazyProduct(Lambda_);
        B_.noalias() = F_.lazyProduct(F_.transpose());
        B_.diagonal().array() += 1.0;
        if (!cholesky(B_)) return false;
        for (int a = 0; a < layout_.q; ++a) logdet += 2 * std::log(B_(a, a));
        inverse_.setIdentity();
        solve_lower(B_, inverse_);
        square_.noalias() = inverse_.transpose().lazyProduct(inverse_);
        T_A_.noalias() = square_.lazyProduct(rows.QA);
        T_Z_.noalias() = square_.lazyProduct(rows.R_Z);
        G_.noalias() = rows.R_Z.transpose().lazyProduct(T_Z_);
        H_.noalias() = rows.R_Z.transpose().lazyProduct(T_A_);
        F_Q_ = -square_;
        F_Q_.diagonal().array() += 1.0;
        return true;
    }

    void add_residual(int k, const MarkovInformation& info_R, const MarkovProducts& products) {
        const int q = layout_.q, p1 = layout_.p1;
        const auto at = static_cast<std::size_t>(k);
        const RowMatrix& YU = products.YU[at];
        double& trace = out_[layout_.trace(of_R(k))];
        trace += info_R.trace(k);
        quad(of_R(k)) += YU.bottomRightCorner(p1, p1);
        if (q == 0) return;
        const auto QQ = YU.topLeftCorner(q, q);
        const auto QA = YU.topRightCorner(q, p1);
        S_[at] = QA;
        S_[at].noalias() += QQ.lazyProduct(T_A_);
        quad(of_R(k)).noalias() += QA.transpose().lazyProduct(T_A_);
        quad(of_R(k)).noalias() += T_A_.transpose().lazyProduct(S_[at]);
        ZR_A_[at].noalias() = T_Z_.transpose().lazyProduct(S_[at]);
        square_.noalias() = QQ.lazyProduct(T_Z_);
        ZR_Z_[at].noalias() = T_Z_.transpose().lazyProduct(square_);
        F_YU_[at].noalias() = F_Q_.lazyProduct(QQ);
        trace -= F_YU_[at].trace();
    }

    void add_residual_pair(int k, int l, const MarkovInformation& info_R, const MarkovProducts& products) {
        const int q = layout_.q;
        double value = info_R.info(k, l);
        if (q > 0) {
            const auto UU = products.UU[MarkovProducts::pair(k, l)].topLeftCorner(q, q);
            const RowMatrix &F_k = F_YU_[static_cast<std::size_t>(k)],
                            &F_l = F_YU_[static_cast<std::size_t>(l)];
            value += 0.5 * F_k.cwiseProduct(F_l.transpose()).sum() - F_Q_.cwiseProduct(UU).sum();
        }
        info(of_R(k), of_R(l)) += value;
        if (k != l) info(of_R(l), of_R(k)) += value;
        if (layout_.with_kr) add_residual_kr(k, l, products.UU[MarkovProducts::pair(k, l)]);
    }

    // kr_kl and its mirror image kr_lk = kr_kl'.
    void add_residual_kr(int k, int l, const RowMatrix& UU) {
        const int q = layout_.q, p1 = layout_.p1, at = of_R(k), bt = of_R(l);
        add_with_mirror(at, bt, UU.bottomRightCorner(p1, p1));
        if (q == 0) return;
        const auto AQ = UU.bottomLeftCorner(p1, q);
        wide_ = UU.topRightCorner(q, p1);
        wide_.noalias() += UU.topLeftCorner(q, q).lazyProduct(T_A_);
        add_with_mirror(at, bt, AQ.lazyProduct(T_A_));
        add_with_mirror(at, bt, T_A_.transpose().lazyProduct(wide_));
        wide_.noalias() = F_Q_.lazyProduct(S_[static_cast<std::size_t>(l)]);
        add_with_mirror(at, bt, -S_[static_cast<std::size_t>(k)].transpose().lazyProduct(wide_));
    }
    template <class Block>
    void add_with_mirror(int k, int l, const Block& value) {
        kr(k, l) += value;
        if (k != l) kr(l, k) += value.transpose();
    }

    // Calls each(x, y) for the one or two orders of the pair a <= b: dV = sum over them of z_x z_y'.
    template <class Each>
    static void for_orders(int a, int b, const Each& each) {
        each(a, b);
        if (a != b) each(b, a);
    }

    void add_random() {
        const int q = layout_.q;
        for (int b = 0; b < q; ++b)
            for (int a = 0; a <= b; ++a) {
                const int k = pair_index(a, b, q);
                out_[layout_.trace(k)] += (a == b ? 1 : 2) * G_(a, b);
                for_orders(a, b, [&](int x, int y) {
                    quad(k).noalias() += H_.row(x).transpose().lazyProduct(H_.row(y));
                });
                add_random_and_random(a, b);
                for (int l = 0; l < layout_.K_R; ++l) add_random_and_residual(a, b, l);
            }
    }

    void add_random_and_random(int a, int b) {
        const int q = layout_.q, k = pair_index(a, b, q);
        for (int d = 0; d < q; ++d)
            for (int c = 0; c <= d; ++c) {
                const int l = pair_index(c, d, q);
                for_orders(a, b, [&](int x, int y) {
                    for_orders(c, d, [&](int z, int w) {
                        info(k, l) += 0.5 * G_(w, x) * G_(y, z);
                        if (!layout_.with_kr) return;
                        kr(k, l).noalias() += G_(y, z) * H_.row(x).transpose().lazyProduct(H_.row(w));
                    });
                });
            }
    }

    void add_random_and_residual(int a, int b, int l) {
        const int k = pair_index(a, b, layout_.q), at = of_R(l);
        const RowMatrix &ZR_Z = ZR_Z_[static_cast<std::size_t>(l)],
                        &ZR_A = ZR_A_[static_cast<std::size_t>(l)];
        const double value = (a == b ? 0.5 : 1.0) * ZR_Z(a, b);
        info(k, at) += value;
        info(at, k) += value;
        if (!layout_.with_kr) return;
        for_orders(a, b, [&](int x, int y) {
            add_with_mirror(k, at, H_.row(x).transpose().lazyProduct(ZR_A.row(y)));
        });
    }
};

}  // namespace lmmfast
