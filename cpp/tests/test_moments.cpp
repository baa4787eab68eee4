// Totals of the moments engine against dense V_i, in lanes and as matrix products, any thread count.
#include "check.hpp"
#include "lmmfast/engines/moments/moments.hpp"

namespace lmmfast::testing::test_moments {

namespace {

Totals dense_totals(const Sample& s, const Matrix& Lambda) {
    const auto [q, p1] = s.layout;
    Totals totals(q, p1, true);
    const int K = n_pairs(q);
    for (Index i = 0; i < s.m(); ++i) {
        const Matrix Z = s.Zi(i), A = s.A(i);
        const Matrix V =
            Matrix::Identity(Z.rows(), Z.rows()) + Z * Lambda * Lambda.transpose() * Z.transpose();
        const Matrix V_inv = V.inverse();
        std::vector<Matrix> V_inv_dV;
        for (int a = 0; a < q; ++a)
            for (int b = a; b < q; ++b) {
                Matrix E = Matrix::Zero(q, q);
                E(a, b) = E(b, a) = 1.0;
                V_inv_dV.push_back(V_inv * Z * E * Z.transpose());
            }
        totals.logdet() += std::log(V.determinant());
        Eigen::Map<Matrix>(totals.gram(), p1, p1) += A.transpose() * V_inv * A;
        for (int k = 0; k < K; ++k) {
            totals.trace()[k] += V_inv_dV[k].trace();
            Eigen::Map<Matrix>(totals.quad(k), p1, p1) += A.transpose() * V_inv_dV[k] * V_inv * A;
            for (int l = 0; l < K; ++l) {
                totals.info()[k * K + l] += 0.5 * (V_inv_dV[k] * V_inv_dV[l]).trace();
                Eigen::Map<Matrix>(totals.kr(k, l), p1, p1) +=
                    A.transpose() * V_inv_dV[k] * V_inv_dV[l] * V_inv * A;
            }
        }
    }
    return totals;
}

}  // namespace

TEST(moments) {
    const std::vector<int> sizes{1, 2, 5, 8, 3, 3, 7, 40, 2, 6, 4};
    for (const int q : {1, 2, 3, 4, 5})
        for (const int p : {1, 2, 5, 6, 11, 12, 15}) {
            const Sample s(sizes, q, p, 11);
            Matrix Lambda = Matrix::Zero(q, q);
            for (int a = 0; a < q; ++a)
                for (int b = 0; b <= a; ++b) Lambda(a, b) = 0.3 + 0.1 * a - 0.2 * b;
            const Totals expected = dense_totals(s, Lambda);
            Interrupt interrupt;
            const Totals found =
                evaluate_moments(s.blocks, Lambda.data(), s.sums.perp.data(), true, 1, interrupt);
            CHECK(found.values.size() == expected.values.size());
            for (std::size_t e = 0; e < found.values.size(); ++e)
                CHECK(close(found.values[e], expected.values[e], 1e-8));
        }
    // Columns of Z among those of X: sums of the other columns alone give the same totals.
    for (const int q : {1, 2, 3, 4})
        for (const int n_own : {1, 2, 4, 8}) {
            const int p = q + n_own - 1;
            std::vector<int> z_in_x;
            for (int k = 0; k < q; ++k) z_in_x.push_back(p - 1 - k);
            const Sample s(sizes, q, p, 17, 1, z_in_x);
            CHECK(s.sums.z_in_x == z_in_x);
            Matrix Lambda = Matrix::Identity(q, q);
            if (q > 1) Lambda(1, 0) = -0.4;
            Interrupt interrupt;
            const Totals all =
                evaluate_moments(s.blocks, Lambda.data(), s.sums.perp.data(), false, 1, interrupt);
            ClusterBlocks blocks = s.blocks;
            blocks.z_in_x = s.sums.z_in_x.data();
            const Totals own =
                evaluate_moments(blocks, Lambda.data(), s.sums.perp.data(), false, 1, interrupt);
            for (std::size_t e = 0; e < all.values.size(); ++e)
                CHECK(close(own.values[e], all.values[e], 1e-11));
        }
    // Many blocks, so that there are several partial sums: the same bits for any number of threads.
    const Sample large(std::vector<int>(5003, 3), 2, 4, 13);
    const double Lambda[] = {0.5, 0.0, 0.1, 0.3};
    Interrupt interrupt;
    const Totals one = evaluate_moments(large.blocks, Lambda, large.sums.perp.data(), true, 1, interrupt);
    CHECK(large.sums.z_in_x.empty());
    for (const int n_threads : {2, 3, 7})
        CHECK(evaluate_moments(large.blocks, Lambda, large.sums.perp.data(), true, n_threads, interrupt)
                  .values == one.values);
    // Totals of two sets of clusters add.
    Totals twice = one;
    twice += one;
    for (std::size_t e = 0; e < one.values.size(); ++e) CHECK(twice.values[e] == 2 * one.values[e]);
    std::puts("moments: ok");
}

}  // namespace lmmfast::testing::test_moments
