// Dense algebra of a few rows: what the search needs beside Eigen, cheap where matrices are tiny.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <algorithm>
#include <cmath>

#include "lmmfast/base/lanes.hpp"

namespace lmmfast {

using Vector = Eigen::VectorXd;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A = L L' in place, the upper triangle set to zero; false where A is not positive definite.
inline bool cholesky(RowMatrix& A) {
    const Eigen::LLT<Eigen::Ref<RowMatrix>> llt(A);
    if (llt.info() != Eigen::Success) return false;
    A.triangularView<Eigen::StrictlyUpper>().setZero();
    return true;
}

// B <- L^-1 B for lower triangular L.
inline void solve_lower(const RowMatrix& L, RowMatrix& B) {
    constexpr Eigen::Index few_rows = 24;  // where Eigen's blocks do not pay
    if (L.rows() > few_rows) {
        L.triangularView<Eigen::Lower>().solveInPlace(B);
        return;
    }
    for (Eigen::Index i = 0; i < L.rows(); ++i) {
        for (Eigen::Index j = 0; j < i; ++j) B.row(i) -= L(i, j) * B.row(j);
        B.row(i) /= L(i, i);
    }
}

// x <- A^-1 x by elimination with row exchanges, destroying A; false where a pivot is zero.
inline bool solve(RowMatrix& A, Vector& x) {
    const Eigen::Index n = A.rows();
    for (Eigen::Index k = 0; k < n; ++k) {
        Eigen::Index pivot = k;
        for (Eigen::Index i = k + 1; i < n; ++i)
            if (std::abs(A(i, k)) > std::abs(A(pivot, k))) pivot = i;
        if (!(std::abs(A(pivot, k)) > 0)) return false;
        if (pivot != k) {
            A.row(k).swap(A.row(pivot));
            std::swap(x[k], x[pivot]);
        }
        for (Eigen::Index i = k + 1; i < n; ++i) {
            const double factor = A(i, k) / A(k, k);
            for (Eigen::Index j = k + 1; j < n; ++j) A(i, j) -= factor * A(k, j);
            x[i] -= factor * x[k];
        }
    }
    for (Eigen::Index k = n - 1; k >= 0; --k) {
        for (Eigen::Index j = k + 1; j < n; ++j) x[k] -= A(k, j) * x[j];
        x[k] /= A(k, k);
    }
    return true;
}

// Eigenvalues in ascending order, and their eigenvectors in columns.
struct SymmetricEigen {
    Vector values;
    RowMatrix vectors;

    // Destroys A.
    void compute(RowMatrix& A) {
        constexpr Eigen::Index few_rows = 4;
        values.resize(A.rows());
        vectors.resize(A.rows(), A.rows());
        if (A.rows() <= few_rows) return rotate(A);
        const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(A);
        values = solver.eigenvalues();
        vectors = solver.eigenvectors();
    }

  private:
    // Jacobi's rotations.
    void rotate(RowMatrix& A) {
        constexpr int max_sweeps = 30;
        const Eigen::Index n = A.rows();
        vectors.setIdentity();
        for (int sweep = 0; sweep < max_sweeps; ++sweep) {
            bool diagonal = true;
            for (Eigen::Index i = 0; i < n; ++i)
                for (Eigen::Index j = i + 1; j < n; ++j)
                    if (!negligible(A, i, j)) {
                        diagonal = false;
                        rotate_pair(A, i, j);
                    }
            if (diagonal) break;
        }
        values = A.diagonal();
        for (Eigen::Index i = 1; i < n; ++i)
            for (Eigen::Index j = i; j > 0 && values[j] < values[j - 1]; --j) {
                std::swap(values[j], values[j - 1]);
                vectors.col(j).swap(vectors.col(j - 1));
            }
    }
    static bool negligible(const RowMatrix& A, Eigen::Index i, Eigen::Index j) {
        const double size = 0.01 * std::min(std::abs(A(i, i)), std::abs(A(j, j)));
        return size + std::abs(A(i, j)) == size;
    }
    void rotate_pair(RowMatrix& A, Eigen::Index i, Eigen::Index j) {
        const Eigen::Index n = A.rows();
        const double theta = (A(j, j) - A(i, i)) / (2 * A(i, j));
        const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::hypot(theta, 1.0));
        const double c = 1.0 / std::sqrt(t * t + 1), s = t * c, change = t * A(i, j);
        A(i, i) -= change;
        A(j, j) += change;
        A(i, j) = A(j, i) = 0.0;
        for (Eigen::Index k = 0; k < n; ++k) {
            if (k != i && k != j) {
                const double x = A(k, i), y = A(k, j);
                A(k, i) = A(i, k) = c * x - s * y;
                A(k, j) = A(j, k) = s * x + c * y;
            }
            const double x = vectors(k, i), y = vectors(k, j);
            vectors(k, i) = c * x - s * y;
            vectors(k, j) = s * x + c * y;
        }
    }
};

// Lower triangular root of a positive semidefinite matrix, singular ones included.
inline RowMatrix psd_root(const RowMatrix& D) {
    constexpr double well_conditioned = 1e-8;
    RowMatrix root = D;
    if (cholesky(root) && (root.diagonal().array().square() > well_conditioned * D.diagonal().array()).all())
        return root;
    // The R factor of a QR decomposition of the symmetric root needs no pivot to be positive.
    RowMatrix A = (D + D.transpose()) / 2;
    SymmetricEigen eigen;
    eigen.compute(A);
    root = eigen.vectors * eigen.values.cwiseMax(0.0).cwiseSqrt().asDiagonal();
    const Eigen::HouseholderQR<RowMatrix> qr(root.transpose());
    root = qr.matrixQR().triangularView<Eigen::Upper>().toDenseMatrix().transpose();
    for (Eigen::Index j = 0; j < root.cols(); ++j)
        if (root(j, j) < 0) root.col(j) *= -1;
    return root;
}

}  // namespace lmmfast
