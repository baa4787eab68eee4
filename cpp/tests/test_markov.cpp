// The Markov engine against dense V_i: totals, effects, whitened residuals; nothing allocated on the way.
#include "check.hpp"
#include "lmmfast/engines/markov/effects.hpp"

namespace lmmfast::testing::test_markov {

namespace {

struct Case {
    int p1, q, K_v;
    std::vector<std::int64_t> ptr{0};
    Matrix A, Z, G;
    Eigen::VectorXd lag, root_w_inv, kappa;
    Matrix Lambda;
    double psi = 0.4, nu = 0.2;
    bool is_ar1;

    Case(const std::vector<int>& sizes, int p1_, int q_, int K_v_, bool is_ar1_)
        : p1(p1_), q(q_), K_v(K_v_), is_ar1(is_ar1_) {
        for (const int n_i : sizes) ptr.push_back(ptr.back() + n_i);
        std::mt19937 generator(5);
        std::normal_distribution<double> normal;
        std::uniform_real_distribution<double> uniform(0.5, 2.0);
        const auto draw = [&](Eigen::Index rows, int columns) {
            return Matrix(Matrix::NullaryExpr(rows, columns, [&] { return normal(generator); }));
        };
        const auto n = ptr.back();
        A = draw(n, p1);
        Z = draw(n, q);
        G = draw(n, K_v) * 0.3;
        kappa = draw(K_v, 1) * 0.3;
        lag = Eigen::VectorXd::NullaryExpr(n, [&] { return is_ar1 ? 1.0 : uniform(generator); });
        root_w_inv = Eigen::VectorXd::NullaryExpr(n, [&] { return uniform(generator); });
        Lambda = draw(q, q).triangularView<Eigen::Lower>();
    }

    Index m() const { return static_cast<Index>(ptr.size()) - 1; }
    int K() const { return n_pairs(q) + K_v + 2; }
    MarkovRows rows() const {
        return {p1, q, K_v, m(), ptr.data(), A.data(), Z.data(), lag.data(), root_w_inv.data(), G.data()};
    }
    MarkovPoint point() const {
        return {MarkovDecay(is_ar1 ? "ar1" : "exponential", psi), true, nu, kappa.data(), Lambda.data()};
    }

    // V of cluster i, then its derivatives.
    std::vector<Matrix> V_and_dV(Index i) const {
        const auto begin = ptr[i], n = ptr[i + 1] - begin;
        const Matrix Zi = Z.middleRows(begin, n), Gi = G.middleRows(begin, n);
        const Eigen::VectorXd s = (Gi * kappa).array().exp() * root_w_inv.segment(begin, n).array();
        Matrix C = Matrix::Identity(n, n), dC = Matrix::Zero(n, n);
        for (Index j = 0; j < n; ++j)
            for (Index k = 0; k < j; ++k) {
                const double d = lag.segment(begin + k + 1, j - k).sum(), rho = std::tanh(psi);
                const double x = d * std::exp(-psi);
                C(j, k) = C(k, j) = is_ar1 ? std::pow(rho, d) : std::exp(-x);
                dC(j, k) = dC(k, j) = is_ar1 ? d * std::pow(rho, d - 1) * (1 - rho * rho) : x * std::exp(-x);
            }
        const Matrix ss = s * s.transpose(), I = Matrix::Identity(n, n);
        const Matrix R = ss.cwiseProduct((1 - nu) * C + nu * I);
        std::vector<Matrix> out{Zi * Lambda * Lambda.transpose() * Zi.transpose() + R};
        for (int b = 0; b < q; ++b)
            for (int a = b; a < q; ++a) {
                Matrix E = Matrix::Zero(q, q);
                E(a, b) = E(b, a) = 1.0;
                out.push_back(Zi * E * Zi.transpose());
            }
        for (int k = 0; k < K_v; ++k) out.push_back(Gi.col(k).asDiagonal() * R + R * Gi.col(k).asDiagonal());
        out.push_back((1 - nu) * ss.cwiseProduct(dC));
        out.push_back(ss.cwiseProduct(I - C));
        return out;
    }

    std::vector<double> dense_totals() const {
        const MarkovLayout layout{q, p1, K_v + 2, true};
        std::vector<double> out(static_cast<std::size_t>(layout.size()));
        const auto block = [&](Index at) { return Eigen::Map<Matrix>(out.data() + at, p1, p1); };
        for (Index i = 0; i < m(); ++i) {
            const Matrix Ai = A.middleRows(ptr[i], ptr[i + 1] - ptr[i]);
            const std::vector<Matrix> V = V_and_dV(i);
            const Matrix V_inv = V[0].inverse();
            out[0] += std::log(V[0].determinant());
            block(layout.gram()) += Ai.transpose() * V_inv * Ai;
            for (int k = 0; k < K(); ++k) {
                const Matrix V_inv_dV = V_inv * V[static_cast<std::size_t>(k + 1)];
                out[static_cast<std::size_t>(layout.trace(k))] += V_inv_dV.trace();
                block(layout.quad(k)) += Ai.transpose() * V_inv_dV * V_inv * Ai;
                for (int l = 0; l < K(); ++l) {
                    const Matrix product = V_inv_dV * V_inv * V[static_cast<std::size_t>(l + 1)];
                    out[static_cast<std::size_t>(layout.info(k, l))] += 0.5 * product.trace();
                    block(layout.kr(k, l)) += Ai.transpose() * product * V_inv * Ai;
                }
            }
        }
        return out;
    }
};

void check_totals(const Case& some) {
    Interrupt interrupt;
    const MarkovTotals found = markov_totals(some.rows(), some.point(), true, 1, interrupt);
    const std::vector<double> expected = some.dense_totals();
    CHECK(found.failed == -1 && found.values.size() == expected.size());
    for (std::size_t e = 0; e < expected.size(); ++e) CHECK(close(found.values[e], expected[e], 1e-8));
}

void check_predictions(const Case& some) {
    Interrupt interrupt;
    const auto q = some.q;
    const Matrix root = Matrix::Identity(q, q) + some.Lambda;
    const Eigen::VectorXd c = Eigen::VectorXd::LinSpaced(some.p1, -1.0, 1.0), x = some.A * c;
    Matrix b(some.m(), q), covariance(some.m() * q, q);
    Eigen::VectorXd whitened(x.size());
    const auto rows = some.rows();
    const auto point = some.point();
    CHECK(markov_effects(rows, point, root.data(), c.data(), b.data(), 1, interrupt) == -1);
    CHECK(markov_effects_covariance(rows, point, root.data(), covariance.data(), 1, interrupt) == -1);
    CHECK(markov_whitened(rows, point, c.data(), whitened.data(), 1, interrupt) == -1);
    for (Index i = 0; i < some.m(); ++i) {
        const auto begin = some.ptr[i], n = some.ptr[i + 1] - begin;
        const Matrix V = some.V_and_dV(i)[0], ZL = some.Z.middleRows(begin, n) * some.Lambda;
        const Eigen::VectorXd u = ZL.transpose() * V.inverse() * x.segment(begin, n);
        const Matrix var = Matrix::Identity(q, q) - ZL.transpose() * V.inverse() * ZL;
        CHECK((b.row(i).transpose() - root * u).norm() < 1e-9);
        CHECK((covariance.middleRows(i * q, q) - root * var * root.transpose()).norm() < 1e-9);
        const Matrix L = V.llt().matrixL();
        CHECK((L * whitened.segment(begin, n) - x.segment(begin, n)).norm() < 1e-9);
    }
}

// A worker's memory is made once.
void check_allocations(const Case& some, bool with_kr) {
    const auto rows = some.rows();
    const auto point = some.point();
    const MarkovLayout layout{some.q, some.p1, some.K_v + 2, with_kr};
    std::vector<double> out(static_cast<std::size_t>(layout.size()));
    detail::MarkovWorker worker(rows, point, layout);
    Interrupt interrupt;
    Eigen::internal::set_is_malloc_allowed(false);
    const Index end = worker.add(0, some.m(), interrupt, out.data());
    Eigen::internal::set_is_malloc_allowed(true);
    CHECK(end == some.m());
}

}  // namespace

TEST(markov) {
    const std::vector<int> sizes{1, 2, 9, 1, 17, 4, 3};
    for (const bool is_ar1 : {false, true})
        for (const int q : {0, 1, 3})
            for (const int p1 : {1, 4, 9}) {
                const Case some(sizes, p1, q, q, is_ar1);
                check_totals(some);
                check_predictions(some);
                for (const bool with_kr : {false, true}) check_allocations(some, with_kr);
            }
    // Many rows, so that there are several partial sums: the same bits for any number of threads.
    const Case large(std::vector<int>(3001, 4), 3, 1, 1, false);
    Interrupt interrupt;
    const auto one = markov_totals(large.rows(), large.point(), false, 1, interrupt).values;
    for (const int n_threads : {2, 3, 7})
        CHECK(markov_totals(large.rows(), large.point(), false, n_threads, interrupt).values == one);
    // A tie without a nugget is named.
    Case tied(sizes, 2, 1, 0, false);
    tied.nu = 0.0;
    tied.lag[tied.ptr[4] + 3] = 0.0;
    CHECK(markov_totals(tied.rows(), tied.point(), false, 2, interrupt).failed == 4);
    std::puts("markov: ok");
}

}  // namespace lmmfast::testing::test_markov
