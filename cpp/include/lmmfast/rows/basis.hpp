// The working basis: X, Z and y centred and scaled, and the way back to the user's units.
//
// Every change of basis is exact algebra, whatever numbers it uses; they only have to be near enough
// that nothing cancels (docs/algorithm.md, eq. 3.1-3.2).
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <vector>

#include "lmmfast/rows/gathered.hpp"

namespace lmmfast {

// Working columns: (x - x_shift) / x_scale times x_mix, likewise z; the response less y_shift, over
// y_scale, less X beta; weights over weight_scale.
struct Basis {
    Eigen::VectorXd x_shift, x_scale;  // (p,)
    // X unit = 1 in every row; only then are y and the columns with a zero in unit shifted. Size 0: no
    // such coefficients.
    Eigen::VectorXd unit;
    Eigen::VectorXd z_shift, z_scale;  // (q,)
    // Constant column of Z in the same term, by which a column of Z was shifted (-1: none), its value.
    std::vector<int> z_units;
    Eigen::VectorXd z_unit_values;
    // Upper triangular, of size 0 where none is needed: makes nearly dependent columns nearly orthogonal.
    Eigen::MatrixXd x_mix, z_mix;
    double y_shift = 0.0, y_scale = 1.0;
    Eigen::VectorXd beta;       // (p,) coefficients, in the working basis, of the working residual
    std::vector<int> excluded;  // columns of X that have no part in the basis, ascending
    bool weighted = false;
    double weight_scale = 1.0;
    double y_size = 0.0;  // largest absolute response in units of y_scale

    int p() const { return static_cast<int>(x_scale.size()); }
    int q() const { return static_cast<int>(z_scale.size()); }
    bool is_excluded(int j) const { return std::binary_search(excluded.begin(), excluded.end(), j); }

    // Takes working coefficients of the kept columns to the user's, (k, k).
    Eigen::MatrixXd x_map(const std::vector<int>& keep) const {
        Eigen::MatrixXd A = x_scale.cwiseInverse().asDiagonal();
        if (unit.size()) A.noalias() -= unit * x_shift.cwiseQuotient(x_scale).transpose();
        if (x_mix.size()) A = A * x_mix;
        return A(keep, keep);
    }

    // Logarithm of the determinant of x_map.
    double x_log_det(const std::vector<int>& keep) const {
        double total = 0.0;
        for (const int j : keep) total += std::log((x_mix.size() ? x_mix(j, j) : 1.0)) - std::log(x_scale[j]);
        return total;
    }

    // A (q, q) with b = A b_working, so that D = A D_working A'.
    Eigen::MatrixXd z_map() const {
        Eigen::MatrixXd A = z_scale.cwiseInverse().asDiagonal();
        for (int k = 0; k < q(); ++k)
            if (z_units[k] >= 0) A(z_units[k], k) -= z_shift[k] / z_scale[k] / z_unit_values[k];
        return z_mix.size() ? Eigen::MatrixXd(A * z_mix) : A;
    }
};

// Rows in the working basis.
struct WorkingRows {
    Eigen::MatrixXd X, Z;        // (n, p), (n, q)
    Eigen::VectorXd r, weights;  // working residual (n,); weights over their scale, or size 0

    void set(const Gathered& rows, const Basis& basis) {
        X.resize(rows.X.rows(), rows.X.cols());
        for (Index j = 0; j < X.cols(); ++j)
            X.col(j) = (rows.X.col(j).array() - basis.x_shift[j]) * (1.0 / basis.x_scale[j]);
        Z.resize(rows.Z.rows(), rows.Z.cols());
        for (Index k = 0; k < Z.cols(); ++k)
            Z.col(k) = (rows.Z.col(k).array() - basis.z_shift[k]) * (1.0 / basis.z_scale[k]);
        change_basis(X, basis.x_mix);
        change_basis(Z, basis.z_mix);
        weights = rows.weights * (1.0 / basis.weight_scale);
        set_residual(rows, basis);
    }

    void set_residual(const Gathered& rows, const Basis& basis) {
        r = (rows.y.array() - basis.y_shift) * (1.0 / basis.y_scale);
        for (Index j = 0; j < X.cols(); ++j)
            if (basis.beta[j] != 0.0) r -= basis.beta[j] * X.col(j);
    }

    // Columns times an upper triangular matrix, the last column first: the earlier ones are still as they
    // were.
    static void change_basis(Eigen::MatrixXd& columns, const Eigen::MatrixXd& T) {
        if (!T.size()) return;
        for (Index j = columns.cols(); j-- > 0;) {
            columns.col(j) *= T(j, j);
            for (Index k = 0; k < j; ++k)
                if (T(k, j) != 0.0) columns.col(j) += T(k, j) * columns.col(k);
        }
    }
};

}  // namespace lmmfast
