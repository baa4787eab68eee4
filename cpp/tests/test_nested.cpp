// Totals of nested factors against dense V of all rows; the same bits for any number of threads.
#include <random>

#include "check.hpp"
#include "lmmfast/base/aligned.hpp"
#include "lmmfast/engines/nested/nested.hpp"
#include "lmmfast/engines/nested/pack.hpp"
#include "lmmfast/engines/nested/share.hpp"

namespace lmmfast::testing::test_nested {

namespace {

using Rectangle = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Patients in centres, q effects each, columns of Z by factor.
struct Nested {
    int q, p1;
    std::vector<std::int64_t> first{0}, ptr{0}, first_block{0};
    std::vector<int> center, patient;
    Rectangle A, Z;
    std::vector<double> centre, perp;
    AlignedDoubles blocks;
    NestedTree tree;
    ClusterBlocks clusters;

    Nested(int m, int q_, int p1_, bool constant) : q(q_), p1(p1_) {
        std::mt19937 random(7);
        for (int i = 0; i < m; ++i) {
            const int patients = constant ? 60 : 1 + static_cast<int>(random() % 12);
            for (int j = 0; j < patients; ++j) {
                const int rows = 1 + static_cast<int>(random() % (constant ? 2 : j == 3 ? 40 : 5));
                for (int r = 0; r < rows; ++r) {
                    center.push_back(i);
                    patient.push_back(static_cast<int>(ptr.size()) - 1);
                }
                ptr.push_back(ptr.back() + rows);
            }
            first.push_back(static_cast<std::int64_t>(ptr.size()) - 1);
            first_block.push_back(first_block.back() + (patients + lanes - 1) / lanes);
        }
        std::normal_distribution<double> normal;
        A = Rectangle::NullaryExpr(ptr.back(), p1, [&] { return normal(random); });
        Z = Rectangle::NullaryExpr(ptr.back(), 2 * q, [&] { return normal(random); });
        A.col(0).setOnes();
        if (constant) Z.setOnes();
        bind(m);
    }

    void bind(int m) {
        const Layout layout{q, q + p1};
        centre.assign(static_cast<std::size_t>(m * q * p1), 0.0);
        perp.assign(static_cast<std::size_t>(m * n_pairs(q + p1)), 0.0);
        blocks = AlignedDoubles(static_cast<std::size_t>(first_block.back() * layout.n_fields() * lanes));
        std::fill_n(blocks.data(), blocks.size(), 0.0);
        NestedLevel outer, inner;
        for (int a = 0; a < q; ++a) {
            inner.columns.push_back(a);
            outer.columns.push_back(q + a);
        }
        outer.m = m;
        outer.first = first.data();
        outer.centre = centre.data();
        inner.m = static_cast<Index>(ptr.size()) - 1;
        tree.levels = {outer, inner};
        tree.p1 = p1;
        tree.first_block = first_block.data();
        tree.perp = perp.data();
        clusters = {layout, first_block.back(), blocks.data()};
        const NestedRows rows{A.data(), Z.data(), nullptr, 0, inner.m, ptr.data()};
        Interrupt interrupt;
        pack_nested(tree, rows, {blocks.data(), {centre.data()}, perp.data()}, 2, interrupt);
    }

    std::vector<double> dense_totals(const Rectangle& Lambda) const {
        const Eigen::Index n = A.rows();
        const int K = n_pairs(2 * q);
        const DenseTotalsLayout layout{K, p1, true};
        std::vector<double> out(static_cast<std::size_t>(layout.size()), 0.0);
        std::vector<Rectangle> dV(static_cast<std::size_t>(K), Rectangle::Zero(n, n));
        const Rectangle D = Lambda * Lambda.transpose();
        Rectangle V = Rectangle::Identity(n, n);
        for (int a = 0; a < 2 * q; ++a)
            for (int b = a; b < 2 * q; ++b) {
                if ((a < q) != (b < q)) continue;
                const std::vector<int>& unit = a < q ? patient : center;
                Rectangle& of_pair = dV[static_cast<std::size_t>(pair_index(a, b, 2 * q))];
                for (Eigen::Index i = 0; i < n; ++i)
                    for (Eigen::Index j = 0; j < n; ++j)
                        if (unit[static_cast<std::size_t>(i)] == unit[static_cast<std::size_t>(j)])
                            of_pair(i, j) = Z(i, a) * Z(j, b) + (a != b ? Z(i, b) * Z(j, a) : 0.0);
                V += D(a, b) * of_pair;
            }
        const Eigen::LLT<Eigen::MatrixXd> llt(V);
        out[0] = 2 * llt.matrixL().toDenseMatrix().diagonal().array().log().sum();
        const Rectangle V_inv = llt.solve(Eigen::MatrixXd::Identity(n, n)), VA = V_inv * A;
        const auto block = [&](Index at) { return Eigen::Map<Rectangle>(&out[at], p1, p1); };
        block(layout.gram()) = A.transpose() * VA;
        for (Rectangle& of_pair : dV) of_pair = V_inv * of_pair;
        for (int k = 0; k < K; ++k) {
            const Rectangle& left = dV[static_cast<std::size_t>(k)];
            out[layout.trace(k)] = left.trace();
            block(layout.quad(k)) = A.transpose() * left * VA;
            for (int l = 0; l < K; ++l) {
                const Rectangle& right = dV[static_cast<std::size_t>(l)];
                out[layout.info(k, l)] = 0.5 * left.cwiseProduct(right.transpose()).sum();
                block(layout.kr(k, l)) = (A.transpose() * left) * (right * VA);
            }
        }
        return out;
    }
};

Rectangle some_Lambda(int q) {
    Rectangle Lambda = Rectangle::Zero(2 * q, 2 * q);
    for (int f = 0; f < 2; ++f)
        for (int a = 0; a < q; ++a)
            for (int b = 0; b <= a; ++b) Lambda(f * q + a, f * q + b) = 0.6 + 0.2 * a - 0.3 * b + 0.1 * f;
    return Lambda;
}

}  // namespace

TEST(nested) {
    Interrupt interrupt;
    for (const int q : {1, 2, 3})
        for (const int p1 : {1, 2, 4}) {
            const Nested s(4, q, p1, false);
            const Rectangle Lambda = some_Lambda(q);
            const std::vector<double> expected = s.dense_totals(Lambda);
            const std::vector<double> found =
                evaluate_nested(s.tree, s.clusters, Lambda.data(), true, 1, interrupt);
            CHECK(found.size() == expected.size());
            for (std::size_t e = 0; e < found.size(); ++e) CHECK(close(found[e], expected[e], 1e-8));
        }
    // Units of one design put together, and many centres so that there are several partial sums.
    const Nested large(200, 1, 3, true);
    const Rectangle Lambda = some_Lambda(1);
    const std::vector<double> one =
        evaluate_nested(large.tree, large.clusters, Lambda.data(), true, 1, interrupt);
    CHECK(one == evaluate_nested(large.tree, large.clusters, Lambda.data(), true, 3, interrupt));
    const NestedTree& tree = large.tree;
    const auto shared = share_nested(tree, large.clusters, 2, interrupt);
    CHECK(shared.has_value());
    NestedTree other = tree;
    other.first_block = shared->first_block.data();
    const ClusterBlocks blocks{large.clusters.layout, shared->first_block.back(), shared->data.data(),
                               shared->counts.data()};
    const std::vector<double> again = evaluate_nested(other, blocks, Lambda.data(), true, 1, interrupt);
    for (std::size_t e = 0; e < one.size(); ++e) CHECK(close(again[e], one[e], 1e-10));
    std::puts("nested: ok");
}

}  // namespace lmmfast::testing::test_nested
