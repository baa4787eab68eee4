// The crossed engine: effects of several grouping factors eliminated one level after the other, the last
// ones as a dense block. docs/crossed.md has the algebra; nothing divides by a root of D except in the
// dense block.
#pragma once

#include "lmmfast/engines/crossed/system.hpp"
#include "lmmfast/engines/dense/tiled_cholesky.hpp"

namespace lmmfast {

// V^-1 at one D, in the space of effects. With Q the Schur complement of G at the time when a node k is
// eliminated and D its factor's: C = (I + Q_kk D)^-1, H = C Q_k,later, S = D + D Q_kk D.
class CrossedElimination {
  public:
    using Small = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor, lmmfast::max_q,
                                lmmfast::max_q>;

    // roots: Lambda_f (q_f, q_f) of each factor; invertible for factors that have levels in the dense block.
    CrossedElimination(const CrossedSystem& system, std::vector<Small> roots, int n_threads,
                       Interrupt& interrupt)
        : s_(system), n_threads_(n_threads), roots_(std::move(roots)), dense_(system.n_dense()) {
        for (const Small& root : roots_) D_.push_back(root.lazyProduct(root.transpose()));
        const auto n_diag = static_cast<std::size_t>(system.diag(system.n_sparse()));
        C_.resize(n_diag);
        T_.resize(static_cast<std::size_t>(system.n_diag()));
        S_.resize(n_diag);
        H_.resize(static_cast<std::size_t>(system.L().value.back()));
        std::vector<double> logs(static_cast<std::size_t>(system.n_sparse()));
        by_stages(false, interrupt, [&](Index k, std::vector<double>& scratch) {
            logs[static_cast<std::size_t>(k)] = eliminate(k, scratch);
        });
        by_chunks(system.n_sparse(), system.n_nodes(), 8, interrupt, [&](Index k) { complement(k); });
        positive_ = dense_.factorise(n_threads, interrupt);
        logdet_ = dense_.logdet();
        for (const double log : logs) logdet_ += log;
        positive_ = positive_ && std::isfinite(logdet_);
    }

    // Whether V is positive definite (and D finite).
    bool positive() const { return positive_; }
    double logdet() const { return logdet_; }

    // Z'WX (N, r) becomes Z'V^-1 X; returns X'WX - X'V^-1 X (r, r).
    RowMatrix solve(Eigen::Map<RowMatrix> B, Interrupt& interrupt) const {
        const Index r = B.cols(), n_sparse = s_.offset(s_.n_sparse());
        RowMatrix b(B.rows(), r);
        by_stages(false, interrupt, [&](Index k, std::vector<double>&) {
            subtract_earlier(k, B, b);
            const auto rows = B.middleRows(s_.offset(k), s_.q(k));
            b.middleRows(s_.offset(k), s_.q(k)) = D(k).lazyProduct(rows);
            B.middleRows(s_.offset(k), s_.q(k)) = RowMatrix(block(C_, k).lazyProduct(rows));
        });
        by_chunks(s_.n_sparse(), s_.n_nodes(), 64, interrupt, [&](Index k) { subtract_earlier(k, B, b); });
        RowMatrix reduction = b.topRows(n_sparse).transpose() * B.topRows(n_sparse);
        solve_dense(B, b, reduction);
        by_stages(true, interrupt, [&](Index k, std::vector<double>&) {
            auto v = B.middleRows(s_.offset(k), s_.q(k));
            const std::int32_t* rows = s_.L().rows(k);
            const double* h = H_.data() + s_.L().start(k);
            for (Index c = 0; c < v.rows(); ++c)
                for (Index p = 0; p < s_.L().length(k); ++p) v.row(c) -= *h++ * b.row(rows[p]);
            b.middleRows(s_.offset(k), s_.q(k)) = D(k).lazyProduct(v);
        });
        return reduction;
    }

    // The blocks Z_k'V^-1 Z_k of all nodes; solve() cannot be called any more.
    const std::vector<double>& own_blocks(Interrupt& interrupt) {
        if (s_.max_q() == 1 && s_.stages().size() == 2) {
            own_of_one_stage(interrupt);
            return T_;
        }
        dense_.invert(n_threads_, interrupt);
        by_chunks(s_.n_sparse(), s_.n_nodes(), 8, interrupt, [&](Index k) { own_dense(k); });
        by_chunks(s_.n_sparse(), s_.n_nodes(), 8, interrupt, [&](Index k) { scale_inverse(k); });
        const auto& stages = s_.stages();
        inner_ = stages.size() < 2 ? 0 : stages[1];
        K_.resize(static_cast<std::size_t>(s_.L().value.back() - s_.L().start(inner_)));
        K_diag_.resize(static_cast<std::size_t>(s_.diag(s_.n_sparse())));
        by_stages(true, interrupt, [&](Index k, std::vector<double>& scratch) { own_sparse(k, scratch); });
        return T_;
    }

  private:
    static Eigen::Map<RowMatrix> block_at(double* at, Index q) { return {at, q, q}; }
    Eigen::Map<const RowMatrix> block(const std::vector<double>& values, Index k) const {
        return {values.data() + s_.diag(k), s_.q(k), s_.q(k)};
    }
    Eigen::Map<RowMatrix> block(std::vector<double>& values, Index k) const {
        return {values.data() + s_.diag(k), s_.q(k), s_.q(k)};
    }
    const Small& D(Index k) const { return D_[static_cast<std::size_t>(s_.factor_of(k))]; }
    const Small& root(Index k) const { return roots_[static_cast<std::size_t>(s_.factor_of(k))]; }

    // Starting threads costs more than little work.
    int threads(Index entries) const { return entries < 50'000 ? 1 : n_threads_; }

    // work(node, scratch) for the sparse nodes, stage by stage; within a stage over threads.
    template <class Work>
    void by_stages(bool reverse, Interrupt& interrupt, const Work& work) const {
        const auto& stages = s_.stages();
        std::vector<double> own;
        const auto n_stages = static_cast<Index>(stages.size()) - 1;
        for (Index at = 0; at < n_stages; ++at) {
            const auto stage = static_cast<std::size_t>(reverse ? n_stages - 1 - at : at);
            const Index begin = stages[stage], size = stages[stage + 1] - begin;
            const Index n_tasks = std::clamp<Index>(size / nodes_worth_a_task, 1, 64);
            if (n_tasks == 1) {
                for (Index k = begin; k < begin + size; ++k) work(k, own);
                interrupt.check();
                continue;
            }
            const Index entries = s_.L().ptr[static_cast<std::size_t>(begin + size)] -
                                  s_.L().ptr[static_cast<std::size_t>(begin)];
            parallel_for(n_tasks, threads(entries), interrupt, [&](Index task) {
                std::vector<double> scratch;
                for (Index k = begin + task * size / n_tasks; k < begin + (task + 1) * size / n_tasks; ++k)
                    work(k, scratch);
            });
        }
    }

    template <class Work>
    void by_chunks(Index begin, Index end, Index chunk, Interrupt& interrupt, const Work& work) const {
        const Index entries = s_.L().ptr.back() + s_.n_dense() * s_.n_dense() / 8;
        const Index n_tasks = (end - begin + chunk - 1) / chunk;
        parallel_for(n_tasks, threads(entries), interrupt, [&](Index task) {
            for (Index k = begin + task * chunk; k < std::min(end, begin + (task + 1) * chunk); ++k) work(k);
        });
    }

    // Columns of the Schur complement of node k, less what the nodes before it take away: into w, column b
    // from w + b * stride on, effect r at w[r].
    void column(Index k, double* w, Index stride) const {
        const Index q = s_.q(k), length = s_.G().length(k), at = s_.offset(k);
        const std::int32_t* rows = s_.G().rows(k);
        const double *values = s_.G_values(k), *diag = s_.G_diag(k);
        for (Index b = 0; b < q; ++b) {
            double* out = w + b * stride;
            for (Index a = 0; a < q; ++a) out[at + a] = diag[a * q + b];
            for (Index p = 0; p < length; ++p) out[rows[p]] = values[b * length + p];
        }
        for (const auto [earlier, p] : s_.reaching(k))
            for (Index b = 0; b < q; ++b) take_away(earlier, p, p + b, w + b * stride);
    }

    // H' S H of an earlier node: the column of its effect at `chosen` among its rows, from row `begin` on.
    void take_away(Index earlier, Index begin, Index chosen, double* out) const {
        const Index q = s_.q(earlier), length = s_.L().length(earlier);
        const std::int32_t* rows = s_.L().rows(earlier);
        const double* h = H_.data() + s_.L().start(earlier);
        const double* S = S_.data() + s_.diag(earlier);
        for (Index c = 0; c < q; ++c) {
            double f = 0.0;
            for (Index d = 0; d < q; ++d) f += S[c * q + d] * h[d * length + chosen];
            const double* values = h + c * length;
            for (Index p = begin; p < length; ++p) out[rows[p]] -= values[p] * f;
        }
    }

    // Returns log|I + Q D|.
    double eliminate(Index k, std::vector<double>& scratch) {
        const Index q = s_.q(k), length = s_.L().length(k), N = s_.n_effects();
        double* h = H_.data() + s_.L().start(k);
        Small Q(q, q);
        if (s_.reaching(k).empty()) {
            Q = Eigen::Map<const RowMatrix>(s_.G_diag(k), q, q);
            std::copy_n(s_.G_values(k), q * length, h);
        } else {
            scratch.resize(static_cast<std::size_t>(s_.max_q() * N), 0.0);
            column(k, scratch.data(), N);
            const std::int32_t* rows = s_.L().rows(k);
            for (Index b = 0; b < q; ++b) {
                double* w = scratch.data() + b * N;
                for (Index a = 0; a < q; ++a) Q(a, b) = std::exchange(w[s_.offset(k) + a], 0.0);
                for (Index p = 0; p < length; ++p) h[b * length + p] = std::exchange(w[rows[p]], 0.0);
            }
        }
        return q == 1 ? finish_one(k, Q(0, 0), h, length) : finish(k, Q, h, length);
    }

    double finish_one(Index k, double Q, double* h, Index length) {
        const double d = D(k)(0, 0), pivot = 1.0 + Q * d, c = 1.0 / pivot;
        for (Index p = 0; p < length; ++p) h[p] *= c;
        const auto at = static_cast<std::size_t>(s_.diag(k));
        C_[at] = c;
        T_[at] = c * Q;
        S_[at] = d * pivot;
        return std::log(pivot);
    }

    double finish(Index k, const Small& Q, double* h, Index length) {
        const Small& d = D(k);
        const Index q = Q.rows();
        const Small pivots = Small::Identity(q, q) + Q.lazyProduct(d);
        const Eigen::PartialPivLU<Small> lu(pivots);
        const Small c = lu.inverse();
        double one[lmmfast::max_q];
        for (Index p = 0; p < length; ++p) {
            for (Index a = 0; a < q; ++a) one[a] = h[a * length + p];
            for (Index a = 0; a < q; ++a) {
                double sum = 0.0;
                for (Index b = 0; b < q; ++b) sum += c(a, b) * one[b];
                h[a * length + p] = sum;
            }
        }
        block(C_, k) = c;
        block(T_, k) = c.lazyProduct(Q);
        block(S_, k) = d.lazyProduct(pivots);
        return std::log(std::max(lu.determinant(), 0.0));
    }

    // Columns of M = I + Lambda' Q Lambda of a node of the dense block.
    void complement(Index k) {
        const Index base = s_.offset(s_.n_sparse()), n = dense_.matrix().rows(), q = s_.q(k);
        double* columns = dense_.matrix().data() + (s_.offset(k) - base) * n;
        column(k, columns - base, n);
        Eigen::Map<Eigen::MatrixXd> M(columns, n, q);
        scale(k, M, [this](Index i) -> const Small& { return root(i); }, true);
        M.middleRows(s_.offset(k) - base, q) += Small::Identity(q, q);
    }

    // Block (i, k), i >= k, of columns of the dense block becomes X_i' M_ik X_k, or X_i M_ik X_k'.
    template <class Root>
    void scale(Index k, Eigen::Map<Eigen::MatrixXd> M, const Root& X, bool transposed) const {
        const Index base = s_.offset(s_.n_sparse());
        if (s_.max_q() == 1) {
            const double own = X(k)(0, 0);
            for (Index i = k; i < s_.n_nodes(); ++i) M(s_.offset(i) - base, 0) *= X(i)(0, 0) * own;
            return;
        }
        Small one;
        for (Index i = k; i < s_.n_nodes(); ++i) {
            auto part = M.middleRows(s_.offset(i) - base, s_.q(i));
            if (transposed)
                one = Small(X(i).transpose().lazyProduct(part)).lazyProduct(X(k));
            else
                one = Small(X(i).lazyProduct(part)).lazyProduct(X(k).transpose());
            part = one;
        }
    }

    // B_k -= sum over the sparse nodes that reach k of H' (D B), where b holds D B.
    void subtract_earlier(Index k, Eigen::Map<RowMatrix> B, const RowMatrix& b) const {
        for (const auto [earlier, p] : s_.reaching(k)) {
            const Index q = s_.q(earlier), length = s_.L().length(earlier);
            const double* h = H_.data() + s_.L().start(earlier) + p;
            for (Index a = 0; a < s_.q(k); ++a)
                for (Index c = 0; c < q; ++c)
                    B.row(s_.offset(k) + a) -= h[c * length + a] * b.row(s_.offset(earlier) + c);
        }
    }

    void solve_dense(Eigen::Map<RowMatrix> B, RowMatrix& b, RowMatrix& reduction) const {
        const Index base = s_.offset(s_.n_sparse());
        if (base == s_.n_effects()) return;
        Eigen::MatrixXd Y(s_.n_dense(), B.cols());
        for (Index k = s_.n_sparse(); k < s_.n_nodes(); ++k)
            Y.middleRows(s_.offset(k) - base, s_.q(k)) =
                root(k).transpose().lazyProduct(B.middleRows(s_.offset(k), s_.q(k)));
        dense_.forward(Y);
        reduction.noalias() += Y.transpose() * Y;
        dense_.backward(Y);
        std::vector<Small> inverses;
        for (const Small& each : roots_) inverses.push_back(each.inverse().transpose());
        for (Index k = s_.n_sparse(); k < s_.n_nodes(); ++k) {
            const auto x = Y.middleRows(s_.offset(k) - base, s_.q(k));
            b.middleRows(s_.offset(k), s_.q(k)) = root(k).lazyProduct(x);
            B.middleRows(s_.offset(k), s_.q(k)) =
                inverses[static_cast<std::size_t>(s_.factor_of(k))].lazyProduct(x);
        }
    }

    // Where all nodes have one effect and the later ones of sparse nodes are in the dense block, half of
    // the inverse is enough: with M^-1 = U U', h K h' = |U' Lambda h'|^2, some columns of U at a time.
    void own_of_one_stage(Interrupt& interrupt) {
        dense_.invert_factor(n_threads_, interrupt);
        const Index n = s_.n_dense(), n_sparse = s_.n_sparse(), base = s_.offset(n_sparse);
        std::vector<double> roots(static_cast<std::size_t>(n)), squares(roots.size(), 0.0);
        for (Index a = 0; a < n; ++a) roots[static_cast<std::size_t>(a)] = root(n_sparse + a)(0, 0);
        const Index entries = s_.L().ptr.back(), n_tasks = threads(entries);
        parallel_for(n_tasks, static_cast<int>(n_tasks), interrupt, [&](Index task) {
            const Index begin = task * n_sparse / n_tasks, end = (task + 1) * n_sparse / n_tasks;
            std::vector<double> panel(static_cast<std::size_t>((n + panel_width) * panel_width));
            for (Index b = 0; b < n; b += panel_width) {
                const Index n_rows = dense_.factor_columns(b, panel_width, panel.data());
                for (Index a = 0; a < n_rows; ++a) {
                    Eigen::Map<PanelRow> row(panel.data() + a * panel_width);
                    if (task == 0) squares[static_cast<std::size_t>(a)] += row.square().sum();
                    row *= roots[static_cast<std::size_t>(a)];
                }
                for (Index k = begin; k < end; ++k)
                    T_[static_cast<std::size_t>(s_.diag(k))] -= panel_square(k, base, n_rows, panel.data());
                interrupt.check();
            }
        });
        for (Index a = 0; a < n; ++a) {
            const auto at = static_cast<std::size_t>(a);
            T_[static_cast<std::size_t>(s_.diag(n_sparse + a))] =
                (1.0 - squares[at]) / (roots[at] * roots[at]);
        }
    }

    double panel_square(Index k, Index base, Index n_rows, const double* panel) const {
        const std::int32_t* rows = s_.L().rows(k);
        const double* h = H_.data() + s_.L().start(k);
        PanelRow sum = PanelRow::Zero();
        for (Index p = 0; p < s_.L().length(k); ++p) {
            const Index row = rows[p] - base;
            if (row >= n_rows) break;
            sum += h[p] * Eigen::Map<const PanelRow>(panel + row * panel_width);
        }
        return sum.square().sum();
    }

    // Lambda'^-1 (I - M^-1) Lambda^-1 of a node of the dense block.
    void own_dense(Index k) {
        const Index at = s_.offset(k) - s_.offset(s_.n_sparse()), q = s_.q(k);
        Small inner = dense_.matrix().block(at, at, q, q);
        inner = Small::Identity(q, q) - Small(inner.template selfadjointView<Eigen::Lower>());
        const Small inverse = root(k).inverse();
        block(T_, k) = Small(inverse.transpose().lazyProduct(inner)).lazyProduct(inverse);
    }

    // M^-1 becomes K = Lambda M^-1 Lambda', the covariance of the effects given the data over sigma2.
    void scale_inverse(Index k) {
        if (s_.n_sparse() == 0) return;
        const Index n = dense_.matrix().rows(), q = s_.q(k), at = s_.offset(k) - s_.offset(s_.n_sparse());
        Eigen::Map<Eigen::MatrixXd> M(dense_.matrix().data() + at * n, n, q);
        const Small corner = M.middleRows(at, q);
        M.middleRows(at, q) = Small(corner.template selfadjointView<Eigen::Lower>());
        scale(k, M, [this](Index i) -> const Small& { return root(i); }, false);
    }

    // T = C Q - H K H' of a sparse node, and its part of K where nodes before it will ask for that.
    void own_sparse(Index k, std::vector<double>& scratch) {
        const Index q = s_.q(k), length = s_.L().length(k);
        const Eigen::Map<const RowMatrix> H(H_.data() + s_.L().start(k), q, length);
        if (q == 1 && k < inner_ && (length == 0 || s_.L().rows(k)[0] >= s_.offset(s_.n_sparse()))) {
            T_[static_cast<std::size_t>(s_.diag(k))] -= quadratic_form(k, H.data());
            return;
        }
        scratch.assign(static_cast<std::size_t>(q * length), 0.0);
        Eigen::Map<RowMatrix> HK(scratch.data(), q, length);
        multiply_K(k, H.data(), scratch.data());
        const Small U = HK.lazyProduct(H.transpose());
        block(T_, k) -= 0.5 * (U + U.transpose());
        if (k < inner_) return;
        const Small& d = D(k);
        Eigen::Map<RowMatrix>(K_.data() + s_.L().start(k) - s_.L().start(inner_), q, length) =
            -d.lazyProduct(HK);
        block(K_diag_, k) = d.lazyProduct(block(C_, k)) + Small(d.lazyProduct(U)).lazyProduct(d);
    }

    // h K h' of a node of one effect whose later nodes are all in the dense block.
    double quadratic_form(Index k, const double* h) const {
        const Index length = s_.L().length(k), base = s_.offset(s_.n_sparse());
        const std::int32_t* rows = s_.L().rows(k);
        double sum = 0.0;
        for (Index p = 0; p < length; ++p) {
            const double* K = dense_.matrix().col(rows[p] - base).data() - base;
            double off = 0.0;
            for (Index other = p + 1; other < length; ++other) off += K[rows[other]] * h[other];
            sum += h[p] * (h[p] * K[rows[p]] + 2.0 * off);
        }
        return sum;
    }

    // out (q, length) += H K, K at the rows of node k: its later nodes' parts of it are there already.
    void multiply_K(Index k, const double* H, double* out) const {
        const Index q = s_.q(k), length = s_.L().length(k), base = s_.offset(s_.n_sparse());
        const std::int32_t* rows = s_.L().rows(k);
        const auto add = [&](Index p, Index other, double value) {
            for (Index c = 0; c < q; ++c) {
                out[c * length + p] += H[c * length + other] * value;
                if (p != other) out[c * length + other] += H[c * length + p] * value;
            }
        };
        for (Index p = 0; p < length; ++p) {
            if (rows[p] >= base) {
                const double* K = dense_.matrix().col(rows[p] - base).data() - base;
                for (Index other = p; other < length; ++other) add(p, other, K[rows[other]]);
                continue;
            }
            const Index node = s_.node_of(rows[p]), within = rows[p] - s_.offset(node), own = s_.q(node);
            const double* diag = K_diag_.data() + s_.diag(node) + within * own;
            Index other = p;
            for (Index a = within; a < own; ++a, ++other) add(p, other, diag[a]);
            const std::int32_t *first = s_.L().rows(node), *found = first,
                               *last = first + s_.L().length(node);
            const double* K = K_.data() + s_.L().start(node) - s_.L().start(inner_) + within * (last - first);
            for (; other < length; ++other) {
                found = std::lower_bound(found, last, rows[other]);
                add(p, other, K[found - first]);
            }
        }
    }

    static constexpr Index nodes_worth_a_task = 256;
    static constexpr Index panel_width = 32;  // divides the tiles of the dense block
    using PanelRow = Eigen::Array<double, static_cast<int>(panel_width), 1>;

    const CrossedSystem& s_;
    int n_threads_;
    std::vector<Small> roots_, D_;
    std::vector<double> H_, C_, S_, T_, K_, K_diag_;
    TiledCholesky dense_;
    double logdet_ = 0.0;
    bool positive_ = true;
    Index inner_ = 0;
};

}  // namespace lmmfast
