// lmmfast without Python: children measured at two to six ages, with a random intercept and slope.
//
// Packs the rows, evaluates the totals at one Lambda, fits the model, and compares both with dense
// matrices V_i. Exits with 1 where they differ.
#include <Eigen/Dense>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numbers>
#include <random>
#include <vector>

#include "lmmfast/compress/compress.hpp"
#include "lmmfast/engines/moments/moments.hpp"
#include "lmmfast/lmmfast.hpp"

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

lmmfast::Fit fit_model(const Children& children) {
    Matrix X(children.height.size(), p);
    X << children.one, children.age;
    std::vector<std::int64_t> child;  // of each row
    for (int i = 0; i < n_children; ++i) child.resize(static_cast<std::size_t>(children.ptr[i + 1]), i);
    return lmmfast::fit(children.height, X, X, child);
}

// The REML log-likelihood at D and sigma2, and the coefficients there.
struct DenseLikelihood {
    double loglik;
    Eigen::VectorXd beta;
};

DenseLikelihood dense_likelihood(const Children& children, const Matrix& D, double sigma2) {
    const Matrix Lambda = Eigen::LLT<Matrix>(D / sigma2).matrixL();
    const Dense totals = dense_totals(children, Lambda);
    const Eigen::LLT<Matrix> S(totals.gram.topLeftCorner(p, p));
    const Eigen::VectorXd g = totals.gram.topRightCorner(p, 1), beta = S.solve(g);
    const double df = static_cast<double>(children.height.size() - p);
    const double log_det_S = 2.0 * S.matrixLLT().diagonal().array().log().sum();
    const double rest = totals.gram(p, p) - beta.dot(g);
    const double deviance = df * std::log(2.0 * std::numbers::pi * sigma2) + totals.logdet + log_det_S;
    return {-0.5 * (deviance + rest / sigma2), beta};
}

bool check_fit(const Children& children) {
    const lmmfast::Fit fit = fit_model(children);
    std::printf("\nfit: %s after %d evaluations\n", fit.status.c_str(), fit.evaluations);
    if (!fit.converged) return false;
    std::printf("beta               %.6f %.6f\n", fit.beta[0], fit.beta[1]);
    std::printf("D                  %.6f %.6f %.6f\n", fit.D(0, 0), fit.D(1, 0), fit.D(1, 1));
    std::printf("sigma2             %.6f\n", fit.sigma2);
    const DenseLikelihood dense = dense_likelihood(children, fit.D, fit.sigma2);
    std::printf("log-likelihood     %.8f (dense: %.8f)\n", fit.loglik, dense.loglik);
    const bool agrees = std::abs(fit.loglik / dense.loglik - 1.0) < 1e-11 &&
                        (fit.beta - dense.beta).norm() < 1e-9 * dense.beta.norm();
    // Nowhere near it may the likelihood be higher.
    bool highest = true;
    for (const double factor : {0.99, 1.01}) {
        highest &= dense_likelihood(children, factor * fit.D, fit.sigma2).loglik < fit.loglik;
        highest &= dense_likelihood(children, fit.D, factor * fit.sigma2).loglik < fit.loglik;
        Matrix D = fit.D;
        D(0, 1) *= factor;
        D(1, 0) *= factor;
        highest &= dense_likelihood(children, D, fit.sigma2).loglik < fit.loglik;
    }
    std::printf("a maximum          %s\n", highest ? "yes" : "no");
    return agrees && highest;
}

}  // namespace

int main() {
    const Children children = simulate();
    const Packed packed = pack(children);
    std::printf("%d children, %d rows\n", n_children, static_cast<int>(children.ptr.back()));
    const bool totals_agree = check_totals(children, packed), fit_agrees = check_fit(children);
    return totals_agree && fit_agrees ? 0 : 1;
}
