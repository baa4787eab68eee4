// Totals and predictions of the dense engine against plain algebra of V, in lanes and pattern by pattern,
// any thread count; patterns that have no factor; residual structures by finite differences.
#include <array>

#include "check.hpp"
#include "lmmfast/engines/dense/dense.hpp"
#include "lmmfast/residual/registry.hpp"

namespace lmmfast::testing::test_dense {

namespace {

// Arrays of random patterns, and their V by definition.
struct Patterns {
    DenseBucket bucket;
    DenseCovariance covariance;
    std::vector<double> A, Z, counts, weights, G, coords, Lambda, kappa{0.2, -0.3};
    std::unique_ptr<DistanceCorrelation> structure = distance_correlation("exponential", 0.4);

    Patterns(Index n_packs, Index reps, int n, int p1, int q, int n_lanes)
        : A(sized(n_packs * reps * n * p1 * n_lanes)),
          Z(sized(n_packs * n * q * n_lanes)),
          counts(static_cast<std::size_t>(n_packs * n_lanes), static_cast<double>(reps)),
          weights(sized(n_packs * n * n_lanes)),
          G(sized(n_packs * n * 2 * n_lanes)),
          coords(sized(n_packs * n * 2 * n_lanes)),
          Lambda(sized(Index{q} * q)) {
        std::mt19937 generator(5);
        std::normal_distribution<double> normal;
        for (auto* values : {&A, &Z, &G, &coords, &Lambda})
            for (double& x : *values) x = normal(generator);
        for (double& x : weights) x = 0.5 + std::abs(normal(generator));
        bucket = {n_packs,       reps,           n,       p1, q, 2, n_lanes, A.data(), Z.data(),
                  counts.data(), weights.data(), G.data()};
        covariance.Lambda = Lambda.data();
        covariance.kappa = kappa.data();
        Correlation& C = covariance.correlation;
        C.kind = Correlation::Kind::distance;
        C.n_params = 1;
        C.structure = structure.get();
        C.coords = coords.data();
        C.n_coords = 2;
        covariance.has_nugget = true;
        covariance.nu = 0.25;
    }
    static std::vector<double> sized(Index size) {
        return std::vector<double>(static_cast<std::size_t>(size));
    }

    // Of the pattern in a lane of a pack: a matrix of an array (n_packs, rows, columns, n_lanes).
    Matrix of(const std::vector<double>& values, Index pack, int lane, int rows, int columns) const {
        Matrix out(rows, columns);
        for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < columns; ++j)
                out(i, j) = values[static_cast<std::size_t>(
                    ((pack * rows + i) * columns + j) * bucket.n_lanes + lane)];
        return out;
    }
    Matrix Zi(Index pack, int lane) const { return of(Z, pack, lane, bucket.n, bucket.q); }
    Matrix Ai(Index cluster, int lane) const { return of(A, cluster, lane, bucket.n, bucket.p1); }
    Matrix L() const { return Eigen::Map<const Matrix>(Lambda.data(), bucket.q, bucket.q); }

    // V at D = Lambda Lambda' + dD and the parameters of the residual moved by `step`.
    Matrix V(Index pack, int lane, const Matrix& dD, const std::vector<double>& step) const {
        const int n = bucket.n;
        const Matrix g = of(G, pack, lane, n, 2), at = of(coords, pack, lane, n, 2);
        const Matrix w = of(weights, pack, lane, n, 1);
        const Eigen::Vector2d k(kappa[0] + step[0], kappa[1] + step[1]);
        const double length = std::exp(0.4 + step[2]), nu = covariance.nu + step[3];
        Matrix out = Zi(pack, lane) * (L() * L().transpose() + dD) * Zi(pack, lane).transpose();
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < n; ++j) {
                const double C = std::exp(-(at.row(i) - at.row(j)).norm() / length);
                const double s = w(i, 0) * w(j, 0) * std::exp(g.row(i).dot(k) + g.row(j).dot(k));
                out(i, j) += s * ((1 - nu) * C + (i == j ? nu : 0.0));
            }
        return out;
    }
    std::vector<Matrix> dV(Index pack, int lane) const {
        const int q = bucket.q;
        std::vector<Matrix> out;
        const Matrix zero = Matrix::Zero(q, q);
        for (int a = 0; a < q; ++a)
            for (int b = a; b < q; ++b) {
                Matrix E = zero;
                E(a, b) = E(b, a) = 1.0;
                out.push_back(Zi(pack, lane) * E * Zi(pack, lane).transpose());
            }
        for (std::size_t k = 0; k < 4; ++k) {
            std::vector<double> up(4), down(4);
            up[k] = 1e-5;
            down[k] = -1e-5;
            out.push_back((V(pack, lane, zero, up) - V(pack, lane, zero, down)) / 2e-5);
        }
        return out;
    }
};

std::vector<double> plain_totals(const Patterns& s, const DenseTotalsLayout& at) {
    std::vector<double> sum(static_cast<std::size_t>(at.size()));
    const auto square = [&](Index k) { return Eigen::Map<Matrix>(sum.data() + k, at.p1, at.p1); };
    for (Index pack = 0; pack < s.bucket.n_packs; ++pack)
        for (int lane = 0; lane < s.bucket.n_lanes; ++lane)
            for (Index rep = 0; rep < s.bucket.reps; ++rep) {
                const Matrix A = s.Ai(pack * s.bucket.reps + rep, lane);
                const Matrix V =
                    s.V(pack, lane, Matrix::Zero(s.bucket.q, s.bucket.q), std::vector<double>(4));
                const Matrix V_inv = V.inverse();
                const std::vector<Matrix> dV = s.dV(pack, lane);
                sum[0] += std::log(V.determinant());
                square(at.gram()) += A.transpose() * V_inv * A;
                for (int k = 0; k < at.K; ++k) {
                    const Matrix W = V_inv * dV[static_cast<std::size_t>(k)];
                    sum[static_cast<std::size_t>(at.trace(k))] += W.trace();
                    square(at.quad(k)) += A.transpose() * W * V_inv * A;
                    for (int l = 0; l < at.K; ++l) {
                        const Matrix WW = W * V_inv * dV[static_cast<std::size_t>(l)];
                        sum[static_cast<std::size_t>(at.info(k, l))] += 0.5 * WW.trace();
                        square(at.kr(k, l)) += A.transpose() * WW * V_inv * A;
                    }
                }
            }
    return sum;
}

void check_totals(int n, int q, int n_lanes) {
    const Patterns s(3, 2, n, 3, q, n_lanes);
    const DenseTotalsLayout layout{n_pairs(q) + 4, 3, true};
    Interrupt interrupt;
    const DenseTotals found = dense_totals({{s.bucket, s.covariance}}, true, 1, interrupt);
    const std::vector<double> expected = plain_totals(s, layout);
    CHECK(found.failed == -1);
    CHECK(found.values.size() == expected.size());
    for (std::size_t e = 0; e < expected.size(); ++e) CHECK(close(found.values[e], expected[e], 1e-7));
}

void check_predictions(int q, int n_lanes) {
    const Patterns s(2, 2, 5, 3, q, n_lanes);
    const std::vector<double> c{-0.5, 0.2, 1.0};
    const Matrix root = Matrix::Identity(q, q) * 0.7;
    const auto [N, reps, n] = std::array{s.bucket.n_packs, s.bucket.reps, Index{5}};
    auto b = Patterns::sized(N * reps * q * n_lanes), cov = Patterns::sized(N * q * q * n_lanes);
    auto white = Patterns::sized(N * reps * n * n_lanes);
    Interrupt interrupt;
    dense_effects(s.bucket, s.covariance, root.data(), c.data(), b.data(), 2, interrupt);
    dense_effects_covariance(s.bucket, s.covariance, root.data(), cov.data(), 2, interrupt);
    dense_whitened(s.bucket, s.covariance, c.data(), white.data(), 2, interrupt);
    for (Index pack = 0; pack < N; ++pack)
        for (int lane = 0; lane < n_lanes; ++lane) {
            const Matrix V = s.V(pack, lane, Matrix::Zero(q, q), std::vector<double>(4));
            const Matrix F = s.Zi(pack, lane) * s.L(), L = V.llt().matrixL();
            const Matrix inner = Matrix::Identity(q, q) - F.transpose() * V.inverse() * F;
            CHECK((s.of(cov, pack, lane, q, q) - 0.49 * inner).norm() < 1e-10);
            for (Index i = pack * reps; i < (pack + 1) * reps; ++i) {
                const Eigen::VectorXd r = s.Ai(i, lane) * Eigen::Map<const Vector>(c.data(), 3);
                CHECK((s.of(b, i, lane, q, 1) - 0.7 * F.transpose() * V.inverse() * r).norm() < 1e-10);
                CHECK((s.of(white, i, lane, 5, 1) - L.inverse() * r).norm() < 1e-10);
            }
        }
}

// The same bits for any number of threads; the first pattern without a factor is named.
void check_threads_and_failure(int n_lanes) {
    Patterns s(200, 1, 4, 3, 1, n_lanes);
    Interrupt interrupt;
    const DenseTotals one = dense_totals({{s.bucket, s.covariance}}, false, 1, interrupt);
    for (const int n_threads : {2, 3, 7})
        CHECK(dense_totals({{s.bucket, s.covariance}}, false, n_threads, interrupt).values == one.values);
    for (const Index pack : {150, 90}) {
        double* row = &s.weights[static_cast<std::size_t>(pack * 4 * n_lanes)];
        row[n_lanes - 1] = row[2 * n_lanes - 1] = 0.0;
        s.Z[static_cast<std::size_t>(pack * 4 * n_lanes + n_lanes - 1)] = 0.0;
        const DenseTotals found = dense_totals({{s.bucket, s.covariance}}, false, 2, interrupt);
        CHECK(found.failed == pack * n_lanes + n_lanes - 1);
        for (const double x : found.values) CHECK(std::isnan(x));
    }
}

void check_tables() {
    const int T = 5;
    for (const std::string& name : names(TableStructures{})) {
        const TableStructure structure = table_structure(name);
        const int K = structure.n_params(T) == any_number ? 2 : structure.n_params(T);
        std::vector<double> psi(static_cast<std::size_t>(K)), C(25), dC(static_cast<std::size_t>(K) * 25),
            unused(dC);
        for (std::size_t k = 0; k < psi.size(); ++k) psi[k] = 0.3 - 0.1 * static_cast<double>(k);
        structure.table(T, K, psi.data(), C.data(), dC.data());
        for (std::size_t k = 0; k < psi.size(); ++k) {
            std::vector<double> up(25), down(25), moved = psi;
            moved[k] += 1e-5;
            structure.table(T, K, moved.data(), up.data(), unused.data());
            moved[k] -= 2e-5;
            structure.table(T, K, moved.data(), down.data(), unused.data());
            for (std::size_t e = 0; e < 25; ++e)
                CHECK(std::abs((up[e] - down[e]) / 2e-5 - dC[k * 25 + e]) < 1e-8);
        }
    }
    CHECK(!table_structure("none").table);
    CHECK(!distance_correlation("none", 0.0));
}

}  // namespace

TEST(dense) {
    for (const int n_lanes : {1, 8}) {
        for (const int n : {1, 4, 9})
            for (const int q : {0, 1, 2}) check_totals(n, q, n_lanes);
        for (const int q : {0, 2}) check_predictions(q, n_lanes);
        check_threads_and_failure(n_lanes);
    }
    check_tables();
    std::puts("dense: ok");
}

}  // namespace lmmfast::testing::test_dense
