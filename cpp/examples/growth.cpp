// lmmfast without Python: children measured at two to six ages, with a random intercept and slope.
//
// Packs the rows, evaluates the totals at one Lambda and compares them with dense matrices V_i. Exits
// with 1 where they differ.
#include <Eigen/Dense>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "lmmfast/engines/compress.hpp"
#include "lmmfast/engines/moments.hpp"

namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int q = 2, p = 2, p1 = p + 1;  // Z = X = [1 age], A = [X y]
constexpr int n_children = 500;

struct Children {
    Eigen::VectorXd one, age, height;
    std::vector<std::int64_t> ptr{0};  // child i owns rows ptr[i] … ptr[i + 1] - 1
};

Children simulate() {
    std::mt19937 random(20);
    std::normal_distribution<double> normal;
    std::vector<double> age, height;
    Children children;
    for (int i = 0; i < n_children; ++i) {
        const double intercept = 75.0 + 3.0 * normal(random), slope = 6.0 + 0.8 * normal(random);
        for (int j = 0; j < 2 + i % 5; ++j) {
            age.push_back(2.0 + j + 0.1 * normal(random));
            height.push_back(intercept + slope * age.back() + 1.5 * normal(random));
        }
        children.ptr.push_back(static_cast<std::int64_t>(age.size()));
    }
    const auto n = static_cast<Eigen::Index>(age.size());
    children.one = Eigen::VectorXd::Ones(n);
    children.age = Eigen::Map<Eigen::VectorXd>(age.data(), n);
    children.height = Eigen::Map<Eigen::VectorXd>(height.data(), n);
    return children;
}

// Clusters in blocks of eight, and what compression sums beside them.
struct Packed {
    struct alignas(64) Field {
        double of_cluster[lmmfast::lanes];
    };
    std::vector<Field> fields;
    lmmfast::CompressedSums sums;
    lmmfast::ClusterBlocks blocks;
};

Packed pack(const Children& children) {
    const std::vector<double> beta(p, 0.0);
    lmmfast::Rows rows;
    rows.X = rows.Z = {{children.one.data(), 1}, {children.age.data(), 1}};
    rows.y = {children.height.data(), 1};
    rows.beta = beta.data();
    rows.ptr = children.ptr.data();
    rows.n_clusters = n_children;

    const lmmfast::Layout layout{q, p1};
    const lmmfast::Index n_blocks = (rows.n_clusters + lmmfast::lanes - 1) / lmmfast::lanes;
    lmmfast::Interrupt interrupt;
    Packed packed;
    packed.fields.resize(static_cast<std::size_t>(n_blocks * layout.n_fields()));
    double* data = packed.fields[0].of_cluster;
    packed.sums = lmmfast::compress(layout, rows, data, 2, interrupt);
    packed.blocks = {layout, n_blocks, data};
    return packed;
}

// sum log|V_i| and sum A_i'V_i^-1 A_i with V_i = I + Z_i Lambda Lambda'Z_i', matrix by matrix.
struct Dense {
    double logdet = 0.0;
    Matrix gram = Matrix::Zero(p1, p1);
};

Dense dense_totals(const Children& children, const Matrix& Lambda) {
    Dense totals;
    for (int i = 0; i < n_children; ++i) {
        const auto begin = children.ptr[i], n_i = children.ptr[i + 1] - begin;
        Matrix A(n_i, p1);
        A << children.one.segment(begin, n_i), children.age.segment(begin, n_i),
            children.height.segment(begin, n_i);
        const Matrix F = A.leftCols(q) * Lambda;
        const Eigen::LLT<Matrix> factor(Matrix::Identity(n_i, n_i) + F * F.transpose());
        totals.logdet += 2.0 * factor.matrixLLT().diagonal().array().log().sum();
        totals.gram += A.transpose() * factor.solve(A);
    }
    return totals;
}

bool check_totals(const Children& children, const Packed& packed) {
    Matrix Lambda(q, q);  // Cov(b) = sigma2 Lambda Lambda'
    Lambda << 2.0, 0.0, -0.1, 0.5;
    lmmfast::Interrupt interrupt;
    lmmfast::Totals totals =
        lmmfast::evaluate_moments(packed.blocks, Lambda.data(), packed.sums.perp.data(), false, 2, interrupt);
    const Dense dense = dense_totals(children, Lambda);
    const Matrix gram = Eigen::Map<const Matrix>(totals.gram(), p1, p1);
    const double logdet_error = std::abs(totals.logdet() / dense.logdet - 1.0);
    const double gram_error = (gram - dense.gram).norm() / dense.gram.norm();
    const Eigen::VectorXd beta = gram.topLeftCorner(p, p).llt().solve(gram.topRightCorner(p, 1));
    std::printf("sum log|V_i|       %.10f (dense: %.10f)\n", totals.logdet(), dense.logdet);
    std::printf("beta at Lambda     %.10f %.10f\n", beta[0], beta[1]);
    std::printf("relative errors    %.1e (log|V|) %.1e (A'V^-1 A)\n", logdet_error, gram_error);
    return logdet_error < 1e-12 && gram_error < 1e-12;
}

}  // namespace

int main() {
    const Children children = simulate();
    const Packed packed = pack(children);
    std::printf("%d children, %d rows\n", n_children, static_cast<int>(children.ptr.back()));
    return check_totals(children, packed) ? 0 : 1;
}
