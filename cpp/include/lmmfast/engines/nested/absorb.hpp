// A unit's own random effects, absorbed into the sums of the totals of the units inside it.
//
// With V^-1 = V2^-1 - V2^-1 Z K Z'V2^-1 everything follows from small matrices (docs/nested.md). Inside the
// unit the columns beyond Z are taken about Z: Atilde = A - Z C0. So where a column lies in the span of Z,
// as one that is constant within the unit does, nothing is left to cancel however large Ddot is.
#pragma once

#include <vector>

#include "lmmfast/engines/moments/factor.hpp"
#include "lmmfast/engines/nested/layout.hpp"

namespace lmmfast {

// Small matrices of one pack of units, row-major.
struct AbsorbedMatrices {
    std::vector<Pack> K, W, T_Z;  // (q, q): Lambda (I + Lambda'G Lambda)^-1 Lambda', Z'V^-1 Z, I - K G
    std::vector<Pack> T1, W_ZA, B_inv_root;  // (q, P'): V^-1 A = V2^-1 [Z Atilde] [T1; I], Z'V^-1 A; L^-1
};

class Absorb {
  public:
    // `in`: totals over [Z_l A_l] that units of this level take in; `out`: those over A_l that they hand out.
    Absorb(const UnitLayout& in, const UnitLayout& out, const TotalLayout& total, int q, const double* Lambda)
        : in_(in),
          out_(out),
          total_(total),
          q_(q),
          Lambda_(Lambda, Lambda + q * q),
          D_(static_cast<std::size_t>(q * q), 0.0),
          entries_(vech_entries(q)),
          small_(static_cast<std::size_t>(4 * q * q), Pack::zero()),
          pivot_inverse_(static_cast<std::size_t>(q)),
          C0_(static_cast<std::size_t>(q * out.P)),
          G_ZA_(C0_.size()),
          N_(C0_.size() * in.K),
          KQ_(static_cast<std::size_t>(q * q * in.K)),
          S_(KQ_.size()),
          kr_T_(static_cast<std::size_t>(in.n_kr * out.n_kr)) {
        for (int a = 0; a < q; ++a)
            for (int b = 0; b < q; ++b)
                for (int k = 0; k < q; ++k) D_[a * q + b] += Lambda[a * q + k] * Lambda[b * q + k];
        for (auto* x : {&m_.K, &m_.W, &m_.T_Z, &m_.B_inv_root}) x->resize(static_cast<std::size_t>(q * q));
        for (auto* x : {&m_.T1, &m_.W_ZA}) x->resize(C0_.size());
    }

    const AbsorbedMatrices& matrices() const { return m_; }

    // The matrices of pack `s` of units: in (in.size(), lanes), C0 (q P', lanes).
    void factorise(const double* in, const double* C0, int s, LogProduct& det) {
        in_data_ = in + s * Pack::size;
        for (int e = 0; e < q_ * out_.P; ++e) C0_[e] = Pack::load(C0 + e * lanes + s * Pack::size);
        for (int a = 0; a < q_; ++a)
            for (int j = 0; j < out_.P; ++j) G_ZA_[a * out_.P + j] = gram(a, q_ + j);
        if (q_ == 1)
            invert_one(det);
        else
            invert(det);
        for (int a = 0; a < q_; ++a)
            for (int j = 0; j < out_.P; ++j) {
                Pack t = Pack::zero(), w = Pack::zero();
                for (int b = 0; b < q_; ++b) {
                    t += m_.T_Z[a * q_ + b] * C0_[b * out_.P + j] - m_.K[a * q_ + b] * G_ZA_[b * out_.P + j];
                    w += m_.W[a * q_ + b] * C0_[b * out_.P + j] + m_.T_Z[b * q_ + a] * G_ZA_[b * out_.P + j];
                }
                m_.T1[a * out_.P + j] = t;
                m_.W_ZA[a * out_.P + j] = w;
            }
    }

    // Adds the totals of the pack: those of `out`, and what adds up over all units to `total`.
    void add(Pack* out, Pack* total) {
        add_gram(out, total);
        for (int k = 0; k < in_.K; ++k) add_inner(k, out, total);
        add_inner_info(total);
        add_own(out, total);
        if (out_.n_kr > 0) add_kr(out);
    }

  private:
    Pack load(Index e) const { return Pack::load(in_data_ + e * lanes); }
    Pack gram(int a, int b) const { return load(a <= b ? pair_index(a, b, in_.P) : pair_index(b, a, in_.P)); }
    Pack quad(int k, int a, int b) const {
        return load(in_.quad(k) + (a <= b ? pair_index(a, b, in_.P) : pair_index(b, a, in_.P)));
    }
    Pack N(int k, int a, int j) const { return N_[(k * q_ + a) * out_.P + j]; }

    void invert_one(LogProduct& det) {
        const Pack g = gram(0, 0), D = Pack::all(D_[0]), pivot = multiply_add(D, g, Pack::all(1.0));
        det.multiply(pivot);
        m_.T_Z[0] = pivot.inverse();
        m_.K[0] = D * m_.T_Z[0];
        m_.W[0] = g * m_.T_Z[0];
        m_.B_inv_root[0] = m_.T_Z[0].sqrt();
    }
    // B = I + Lambda'G Lambda = L L'; K = Lambda B^-1 Lambda'; T_Z = (I + D G)^-1, whose entries may be
    // small beside one: two Newton steps give them their leading digits back.
    void invert(LogProduct& det) {
        const int q = q_, q2 = q * q;
        Pack *G = small_.data(), *B = G + q2, *X = B + q2, *Y = X + q2;
        for (int a = 0; a < q; ++a)
            for (int b = 0; b < q; ++b) G[a * q + b] = gram(a, b);
        for (int a = 0; a < q; ++a)  // X = G Lambda
            for (int b = 0; b < q; ++b) {
                X[a * q + b] = Pack::zero();
                for (int k = 0; k < q; ++k) X[a * q + b] += G[a * q + k] * Lambda_[k * q + b];
            }
        for (int a = 0; a < q; ++a)
            for (int b = 0; b <= a; ++b) {
                Pack sum = Pack::all(a == b ? 1.0 : 0.0);
                for (int k = 0; k < q; ++k) sum += X[k * q + b] * Lambda_[k * q + a];
                for (int k = 0; k < b; ++k) sum -= B[a * q + k] * B[b * q + k];
                if (a == b) {
                    det.multiply(sum);
                    B[a * q + a] = sum.sqrt();
                    pivot_inverse_[a] = B[a * q + a].inverse();
                } else {
                    B[a * q + b] = sum * pivot_inverse_[b];
                }
            }
        for (int b = 0; b < q; ++b)
            for (int a = 0; a < q; ++a) {  // X = L^-1 Lambda', and L^-1
                Pack x = Pack::all(Lambda_[b * q + a]), e = Pack::all(a == b ? 1.0 : 0.0);
                for (int k = 0; k < a; ++k) {
                    x -= B[a * q + k] * X[k * q + b];
                    e -= B[a * q + k] * m_.B_inv_root[k * q + b];
                }
                X[a * q + b] = x * pivot_inverse_[a];
                m_.B_inv_root[a * q + b] = e * pivot_inverse_[a];
            }
        for (int a = 0; a < q; ++a)
            for (int b = 0; b < q; ++b) {
                m_.K[a * q + b] = Pack::zero();
                for (int k = 0; k < q; ++k) m_.K[a * q + b] += X[k * q + a] * X[k * q + b];
            }
        Pack* T = m_.T_Z.data();
        for (int a = 0; a < q; ++a)
            for (int b = 0; b < q; ++b) {
                T[a * q + b] = Pack::all(a == b ? 1.0 : 0.0);
                for (int k = 0; k < q; ++k) T[a * q + b] -= m_.K[a * q + k] * G[k * q + b];
            }
        for (int step = 0; step < 2; ++step) {
            multiply(G, T, Y);
            for (int a = 0; a < q; ++a)
                for (int b = 0; b < q; ++b) {
                    X[a * q + b] = Pack::all(a == b ? 1.0 : 0.0) - T[a * q + b];
                    for (int k = 0; k < q; ++k) X[a * q + b] -= Y[k * q + b] * D_[a * q + k];
                }
            multiply(T, X, Y);
            for (int e = 0; e < q2; ++e) T[e] += Y[e];
        }
        multiply(G, T, Y);
        for (int a = 0; a < q; ++a)
            for (int b = 0; b < q; ++b) m_.W[a * q + b] = (Y[a * q + b] + Y[b * q + a]) * 0.5;
    }
    void multiply(const Pack* a, const Pack* b, Pack* out) const {
        for (int i = 0; i < q_; ++i)
            for (int j = 0; j < q_; ++j) {
                Pack sum = a[i * q_] * b[j];
                for (int k = 1; k < q_; ++k) sum = multiply_add(a[i * q_ + k], b[k * q_ + j], sum);
                out[i * q_ + j] = sum;
            }
    }

    // Calls value(i, j), i <= j, and adds: rows of outer columns to `unit`, the fixed ones to `total`.
    // Entries of `unit` begin with what the units inside bring along at `from`.
    template <class Value>
    void add_triangle(Pack* unit, Pack* total, Index from, bool inner, const Value& value) const {
        const int P = out_.P;
        for (int i = 0; i < out_.o; ++i)
            for (int j = i; j < P; ++j, ++unit) {
                *unit += value(i, j);
                if (inner) *unit += load(from + pair_index(q_ + i, q_ + j, in_.P));
            }
        for (int i = out_.o; i < P; ++i)
            for (int j = i; j < P; ++j) *total++ += value(i, j);
    }

    void add_gram(Pack* out, Pack* total) const {
        const int P = out_.P;
        add_triangle(out + out_.gram(), total + total_.gram(), in_.gram(), true, [&](int i, int j) {
            Pack sum = Pack::zero();
            for (int a = 0; a < q_; ++a)
                sum += C0_[a * P + i] * m_.W_ZA[a * P + j] + G_ZA_[a * P + i] * m_.T1[a * P + j];
            return sum;
        });
    }
    // A parameter of a level further in.
    void add_inner(int k, Pack* out, Pack* total) {
        const int P = out_.P;
        Pack* N_k = &N_[k * q_ * P];
        for (int a = 0; a < q_; ++a)
            for (int j = 0; j < P; ++j) {
                Pack sum = quad(k, a, q_ + j);
                for (int b = 0; b < q_; ++b) sum = multiply_add(quad(k, a, b), m_.T1[b * P + j], sum);
                N_k[a * P + j] = sum;
            }
        add_triangle(out + out_.quad(k), total + total_.quad(k), in_.quad(k), true, [&](int i, int j) {
            Pack sum = Pack::zero();
            for (int a = 0; a < q_; ++a)
                sum += quad(k, a, q_ + i) * m_.T1[a * P + j] + m_.T1[a * P + i] * N_k[a * P + j];
            return sum;
        });
        Pack *KQ = &KQ_[k * q_ * q_], *S = &S_[k * q_ * q_], *QT = small_.data();
        for (int a = 0; a < q_; ++a)
            for (int b = 0; b < q_; ++b) {
                Pack kq = Pack::zero(), qt = Pack::zero();
                for (int c = 0; c < q_; ++c) {
                    kq = multiply_add(m_.K[a * q_ + c], quad(k, c, b), kq);
                    qt = multiply_add(quad(k, a, c), m_.T_Z[c * q_ + b], qt);
                }
                KQ[a * q_ + b] = kq;
                QT[a * q_ + b] = qt;
            }
        for (int a = 0; a < q_; ++a) {
            total[total_.trace() + k] -= KQ[a * q_ + a];
            for (int b = 0; b < q_; ++b) {
                S[a * q_ + b] = Pack::zero();
                for (int c = 0; c < q_; ++c) S[a * q_ + b] += m_.T_Z[c * q_ + a] * QT[c * q_ + b];
            }
        }
    }
    void add_inner_info(Pack* total) const {
        for (int k = 0; k < in_.K; ++k)
            for (int l = k; l < in_.K; ++l) {
                const Index kr = in_.kr(k, l);
                const Pack *KQ_k = &KQ_[k * q_ * q_], *KQ_l = &KQ_[l * q_ * q_];
                Pack sum = Pack::zero();
                for (int a = 0; a < q_; ++a)
                    for (int b = 0; b < q_; ++b) {
                        sum += KQ_k[a * q_ + b] * KQ_l[b * q_ + a] * 0.5;
                        sum -= m_.K[a * q_ + b] * load(kr + b * in_.n_kr + a);
                    }
                total[total_.info(k, l)] += sum;
            }
    }
    void add_own(Pack* out, Pack* total) const {
        const int P = out_.P;
        const Pack *W = m_.W.data(), *h = m_.W_ZA.data();
        for (int e = 0; e < n_pairs(q_); ++e) {
            const auto [a, b, f] = entries_[e];
            const int own = in_.K + e;
            total[total_.trace() + own] += W[a * q_ + b] * (2.0 * f);
            for (int k = 0; k < in_.K; ++k) total[total_.info(k, own)] += S_[(k * q_ + a) * q_ + b] * f;
            for (int e2 = e; e2 < n_pairs(q_); ++e2) {
                const auto [c, d, g] = entries_[e2];
                const Pack both = W[a * q_ + c] * W[b * q_ + d] + W[a * q_ + d] * W[b * q_ + c];
                total[total_.info(own, in_.K + e2)] += both * (f * g);
            }
            add_triangle(out + out_.quad(own), total + total_.quad(own), 0, false,
                         [&, a = a, b = b, f = f](int i, int j) {
                             return (h[a * P + i] * h[b * P + j] + h[b * P + i] * h[a * P + j]) * f;
                         });
        }
    }

    // kr of the leading columns that are wanted further out, pairs k <= l.
    void add_kr(Pack* out) {
        for (int k = 0; k < in_.K; ++k) {
            for (int l = k; l < in_.K; ++l) add_kr_inner(k, l, out + out_.kr(k, l));
            for (int e = 0; e < n_pairs(q_); ++e) add_kr_mixed(k, e, out + out_.kr(k, in_.K + e));
        }
        for (int e = 0; e < n_pairs(q_); ++e)
            for (int e2 = e; e2 < n_pairs(q_); ++e2) add_kr_own(e, e2, out + out_.kr(in_.K + e, in_.K + e2));
    }
    // T'(kr_kl) T - N_k' K N_l
    void add_kr_inner(int k, int l, Pack* out) {
        const int n = out_.n_kr, P = out_.P;
        const Index kr = in_.kr(k, l);
        for (int i = 0; i < in_.n_kr; ++i)
            for (int j = 0; j < n; ++j) {
                Pack sum = load(kr + i * in_.n_kr + q_ + j);
                for (int a = 0; a < q_; ++a)
                    sum = multiply_add(load(kr + i * in_.n_kr + a), m_.T1[a * P + j], sum);
                kr_T_[i * n + j] = sum;
            }
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < n; ++j) {
                Pack sum = kr_T_[(q_ + i) * n + j];
                for (int a = 0; a < q_; ++a) {
                    sum = multiply_add(m_.T1[a * P + i], kr_T_[a * n + j], sum);
                    for (int b = 0; b < q_; ++b) sum -= N(k, a, i) * m_.K[a * q_ + b] * N(l, b, j);
                }
                out[i * n + j] += sum;
            }
    }
    // (N_k'T_Z) E W_ZA
    void add_kr_mixed(int k, int e, Pack* out) const {
        const int n = out_.n_kr, P = out_.P;
        const auto [a, b, f] = entries_[e];
        for (int i = 0; i < n; ++i) {
            Pack to_a = Pack::zero(), to_b = Pack::zero();
            for (int c = 0; c < q_; ++c) {
                to_a += N(k, c, i) * m_.T_Z[c * q_ + b];
                to_b += N(k, c, i) * m_.T_Z[c * q_ + a];
            }
            for (int j = 0; j < n; ++j)
                out[i * n + j] += (to_a * m_.W_ZA[a * P + j] + to_b * m_.W_ZA[b * P + j]) * f;
        }
    }
    // W_AZ E W_ZZ F W_ZA
    void add_kr_own(int e, int e2, Pack* out) const {
        const int n = out_.n_kr, P = out_.P;
        const auto [a, b, f] = entries_[e];
        const auto [c, d, g] = entries_[e2];
        const Pack *W = m_.W.data(), *h = m_.W_ZA.data();
        for (int i = 0; i < n; ++i) {
            const Pack to_c = h[a * P + i] * W[b * q_ + d] + h[b * P + i] * W[a * q_ + d],
                       to_d = h[a * P + i] * W[b * q_ + c] + h[b * P + i] * W[a * q_ + c];
            for (int j = 0; j < n; ++j)
                out[i * n + j] += (to_c * h[c * P + j] + to_d * h[d * P + j]) * (f * g);
        }
    }

    UnitLayout in_, out_;
    TotalLayout total_;
    int q_;
    std::vector<double> Lambda_, D_;
    std::vector<VechEntry> entries_;
    std::vector<Pack> small_, pivot_inverse_, C0_, G_ZA_;
    std::vector<Pack> N_;       // (K, q, P'): rows Z of Q_k T
    std::vector<Pack> KQ_, S_;  // (K, q, q): K Q_k and T_Z'Q_k T_Z, both of Z
    std::vector<Pack> kr_T_;
    AbsorbedMatrices m_;
    const double* in_data_ = nullptr;
};

}  // namespace lmmfast
