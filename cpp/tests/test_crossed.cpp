// The crossed engine against plain algebra of V, in dense and in sparse order, any thread count; the tiled
// Cholesky factor and inverse.
#include "check.hpp"
#include "lmmfast/engines/crossed/crossed.hpp"
#include "lmmfast/engines/crossed/moments.hpp"

namespace lmmfast::testing::test_crossed {

namespace {

using Small = CrossedElimination::Small;

// RowMatrix of three factors: the second has two effects a level, the third is that which the first is nested
// in.
struct Crossed {
    static constexpr Index n = 90;
    static constexpr int q = 4, p1 = 3;
    std::vector<CrossedFactor> factors{{Codes(n), 17, {2}}, {Codes(n), 6, {0, 3}}, {Codes(n), 5, {1}}};
    Matrix A, Z;
    Eigen::VectorXd weights;
    std::vector<Small> roots;

    Crossed() {
        std::mt19937 generator(3);
        std::normal_distribution<double> normal;
        const auto draw = [&] { return normal(generator); };
        for (std::size_t i = 0; i < n; ++i) {
            factors[0].codes[i] = static_cast<std::int32_t>(generator() % 17);
            factors[1].codes[i] = static_cast<std::int32_t>(generator() % 6);
            factors[2].codes[i] = factors[0].codes[i] / 4;
        }
        A = Matrix::NullaryExpr(n, p1, draw);
        Z = Matrix::NullaryExpr(n, q, draw);
        weights = Eigen::VectorXd::NullaryExpr(n, [&] { return 0.5 + std::abs(normal(generator)); });
        roots = {Small::Constant(1, 1, 0.7), Small::Identity(2, 2), Small::Constant(1, 1, 0.4)};
        roots[1] << 0.6, 0.0, -0.2, 0.3;
    }

    // Columns of all effects of a factor.
    Matrix spread(std::size_t f) const {
        const auto own = static_cast<Index>(factors[f].columns.size());
        Matrix out = Matrix::Zero(n, factors[f].m * own);
        for (Index i = 0; i < n; ++i)
            for (Index a = 0; a < own; ++a)
                out(i, factors[f].codes[static_cast<std::size_t>(i)] * own + a) =
                    Z(i, factors[f].columns[static_cast<std::size_t>(a)]);
        return out;
    }
    Matrix V() const {
        Matrix out = weights.cwiseInverse().asDiagonal();
        for (std::size_t f = 0; f < factors.size(); ++f) {
            const Matrix all = spread(f);
            const Index own = roots[f].rows();
            for (Index j = 0; j < factors[f].m; ++j) {
                const Matrix ZL = all.middleCols(j * own, own) * roots[f];
                out += ZL * ZL.transpose();
            }
        }
        return out;
    }
    CrossedSystem system(const DenseLimits& limits, int n_threads) const {
        Interrupt interrupt;
        CrossedSystem out(factors, {0, 2}, p1, limits, n_threads, interrupt);
        const Index half = n / 2;
        for (const Index begin : {Index{0}, half})
            out.add_rows(A.data() + begin * p1, Z.data() + begin * q, weights.data() + begin, begin, half, q,
                         n_threads, interrupt);
        out.finish();
        return out;
    }
};

void test_against_V(const DenseLimits& limits, double size) {
    Crossed data;
    for (std::size_t f = 0; f < 3; f += 2) data.roots[f] *= size;
    const Matrix V = data.V(), inverse = V.inverse();
    const double logdet = Eigen::LLT<Matrix>(V).matrixLLT().diagonal().array().log().sum() * 2.0 +
                          data.weights.array().log().sum();
    Interrupt interrupt;
    const CrossedSystem system = data.system(limits, 2);
    CrossedElimination found(system, data.roots, 2, interrupt);
    CHECK(found.positive() && close(found.logdet(), logdet));
    RowMatrix v = Eigen::Map<const RowMatrix>(system.B().data(), system.n_effects(), data.p1);
    const RowMatrix reduction = found.solve(Eigen::Map<RowMatrix>(v.data(), v.rows(), v.cols()), interrupt);
    const RowMatrix gram = Eigen::Map<const RowMatrix>(system.gram().data(), data.p1, data.p1) - reduction;
    CHECK((gram - data.A.transpose() * inverse * data.A).norm() < 1e-10 * gram.norm());
    const auto& T = found.own_blocks(interrupt);
    for (std::size_t f = 0; f < 3; ++f) {
        const Matrix all = data.spread(f), whole = all.transpose() * inverse * all;
        const Matrix wanted = all.transpose() * inverse * data.A;
        const Index own = data.roots[f].rows();
        for (Index j = 0; j < data.factors[f].m; ++j) {
            const Index node = system.node(static_cast<Index>(f), j);
            CHECK((v.middleRows(system.offset(node), own) - wanted.middleRows(j * own, own)).norm() < 1e-9);
            const Eigen::Map<const RowMatrix> block(T.data() + system.diag(node), own, own);
            CHECK((block - whole.block(j * own, j * own, own, own)).norm() < 1e-9);
        }
    }
}

void test_threads() {
    const Crossed data;
    std::vector<double> first;
    for (const int n_threads : {1, 2, 5}) {
        Interrupt interrupt;
        const CrossedSystem system = data.system({}, n_threads);
        CrossedElimination found(system, data.roots, n_threads, interrupt);
        auto values = found.own_blocks(interrupt);
        values.push_back(found.logdet());
        if (first.empty()) first = values;
        CHECK(values == first);
    }
}

// The coefficients of the equations by their definition.
void test_moments() {
    const Crossed data;
    const CrossedSystem system = data.system({}, 1);
    const std::vector<double> u(static_cast<std::size_t>(system.n_effects()), 1.0);
    const RowMatrix kappa = RowMatrix::Identity(data.q, data.q);
    const auto found = crossed_moments(system, u.data(), kappa);
    const Matrix a = data.spread(0), c = data.spread(2);
    const Matrix W = data.weights.asDiagonal();
    const Matrix G = a.transpose() * W * a;
    double noise = 0.0, own = 0.0, other = 0.0;
    for (Index j = 0; j < G.rows(); ++j) {
        const double r = 1.0 / (G(j, j) + 1.0);
        noise += r * r * G(j, j);
        own += r * r * G(j, j) * G(j, j);
        other += r * r * (a.col(j).transpose() * W * c).squaredNorm();
    }
    CHECK(close(found.noise(2, 2), noise));
    CHECK(close(found.factors(2 * data.q + 2, 2 * data.q + 2), own));
    CHECK(close(found.factors(2 * data.q + 2, data.q + 1), other));
}

void test_tiles(Index n) {
    std::mt19937 generator(9);
    std::normal_distribution<double> normal;
    const Eigen::MatrixXd root = Eigen::MatrixXd::NullaryExpr(n, n, [&] { return normal(generator); });
    const Eigen::MatrixXd S =
        root * root.transpose() / static_cast<double>(n) + Eigen::MatrixXd::Identity(n, n);
    Interrupt interrupt;
    TiledCholesky tiles(n);
    tiles.matrix() = S;
    CHECK(tiles.factorise(3, interrupt));
    const Eigen::MatrixXd L = tiles.matrix().triangularView<Eigen::Lower>();
    CHECK((L * L.transpose() - S).norm() < 1e-11 * S.norm());
    tiles.invert(3, interrupt);
    const Eigen::MatrixXd inverse = tiles.matrix().selfadjointView<Eigen::Lower>();
    CHECK((inverse * S - Eigen::MatrixXd::Identity(n, n)).norm() < 1e-9);
    tiles.matrix().setConstant(-1.0);
    CHECK(!tiles.factorise(1, interrupt));
}

}  // namespace

TEST(crossed) {
    const DenseLimits sparse{0, 2, 2.0};
    for (const double size : {1.0, 1e-2}) {
        test_against_V(DenseLimits{}, size);
        test_against_V(sparse, size);
    }
    test_against_V(DenseLimits{}, 0.0);
    test_threads();
    test_moments();
    for (const Index n : {1, 127, 300, 600}) test_tiles(n);
    std::puts("ok");
}

}  // namespace lmmfast::testing::test_crossed
