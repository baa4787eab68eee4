// Predictions of the random effects and their conditional covariances against dense algebra.
#include "check.hpp"
#include "lmmfast/engines/moments/random_effects.hpp"

namespace lmmfast::testing::test_random_effects {

TEST(random_effects) {
    const std::vector<int> sizes{1, 2, 5, 8, 3, 3, 7, 40, 2, 6, 4};
    for (const int q : {1, 2, 3, 5}) {
        const int p = 3;
        const Sample s(sizes, q, p, 17);
        Matrix Lambda = Matrix::Zero(q, q);
        for (int a = 0; a < q; ++a)
            for (int b = 0; b <= a; ++b) Lambda(a, b) = 0.7 - 0.1 * a + 0.2 * b;
        Lambda(q - 1, q - 1) = 0.0;  // a singular D
        const Eigen::VectorXd c = Eigen::VectorXd::LinSpaced(p + 1, -1.0, 1.0);
        Matrix b(s.m(), q), covariance(s.m(), q * q);
        Interrupt interrupt;
        random_effects(s.blocks, s.m(), Lambda.data(), Lambda.data(), c.data(), b.data(), 2, interrupt);
        random_effects_covariance(s.blocks, s.m(), Lambda.data(), Lambda.data(), covariance.data(), 2,
                                  interrupt);
        const Matrix D = Lambda * Lambda.transpose();
        for (Index i = 0; i < s.m(); ++i) {
            const Matrix Z = s.Zi(i);
            const Matrix V = Matrix::Identity(Z.rows(), Z.rows()) + Z * D * Z.transpose();
            const Matrix DZ = D * Z.transpose(), DZV = DZ * V.inverse();
            const Eigen::VectorXd expected = DZV * (s.A(i) * c);
            const Matrix variance = D - DZV * DZ.transpose();
            for (int a = 0; a < q; ++a) {
                CHECK(close(b(i, a), expected(a)));
                for (int k = 0; k < q; ++k) CHECK(close(covariance(i, a * q + k), variance(a, k)));
            }
        }
    }
    std::puts("random_effects: ok");
}

}  // namespace lmmfast::testing::test_random_effects
