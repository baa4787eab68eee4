// Compression keeps Z'Z, Z'A and A'A of each cluster, whatever its size.
#include "check.hpp"

namespace lmmfast::testing::test_compress {

namespace {

void check_cluster(const Sample& s, Index i) {
    const auto [q, p1] = s.layout;
    Matrix R = Matrix::Zero(q, q), QA(q, p1);
    for (int a = 0; a < q; ++a) {
        for (int b = a; b < q; ++b) R(a, b) = s.field(i, s.layout.r(a, b));
        for (int j = 0; j < p1; ++j) QA(a, j) = s.field(i, s.layout.qa(a, j));
    }
    const Matrix Z = s.Zi(i), A = s.A(i);
    CHECK((R.transpose() * R - Z.transpose() * Z).norm() < 1e-11 * (1 + Z.squaredNorm()));
    CHECK((R.transpose() * QA - Z.transpose() * A).norm() < 1e-11 * (1 + Z.norm() * A.norm()));
}

}  // namespace

TEST(compress) {
    // Sizes around the tile of 32 rows, and those that go through the eight strands.
    const std::vector<int> sizes{1, 2, 5, 31, 32, 33, 40, 256, 257, 1000, 3, 7, 64, 1};
    for (const int q : {1, 2, 3, 10})
        for (const int p : {1, 4, 15}) {
            const Sample s(sizes, q, p, 7);
            Matrix gram = Matrix::Zero(p + 1, p + 1), perp = gram;
            Index rank = 0;
            for (Index i = 0; i < s.m(); ++i) {
                check_cluster(s, i);
                const Matrix A = s.A(i), Z = s.Zi(i);
                const Eigen::ColPivHouseholderQR<Matrix> qr(Z);
                rank += qr.rank();
                const Matrix fitted = Z * qr.solve(A);
                gram += A.transpose() * A;
                perp += (A - fitted).transpose() * (A - fitted);
            }
            const Eigen::Map<const Matrix> gram_sum(s.sums.gram.data(), p + 1, p + 1);
            const Eigen::Map<const Matrix> perp_sum(s.sums.perp.data(), p + 1, p + 1);
            CHECK((gram_sum - gram).norm() < 1e-11 * gram.norm());
            CHECK((perp_sum - perp).norm() < 1e-10 * gram.norm());
            CHECK(s.sums.rank_Z == rank);
        }
    std::puts("compress: ok");
}

}  // namespace lmmfast::testing::test_compress
