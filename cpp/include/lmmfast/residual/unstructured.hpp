// Unstructured: any correlation table. L is unit lower triangular with L_ij = psi, row by row, its rows
// scaled to length one; C = L L'.
#pragma once

#include "lmmfast/residual/table.hpp"

namespace lmmfast {

struct UnstructuredCorrelation {
    static constexpr const char* name = "unstructured";

    static int n_params(int T) { return T * (T - 1) / 2; }

    static void table(int T, int, const double* psi, double* C, double* dC) {
        TableWriter out(T, C, dC);
        const auto size = static_cast<std::size_t>(T);
        std::vector<double> L(size * size), length(size);
        const auto row = [&](int i) { return L.data() + Index{i} * T; };
        for (int i = 0, k = 0; i < T; ++i) {
            for (int j = 0; j < i; ++j) row(i)[j] = psi[k++];
            row(i)[i] = 1.0;
            double sum = 0.0;
            for (int j = 0; j <= i; ++j) sum += row(i)[j] * row(i)[j];
            length[static_cast<std::size_t>(i)] = std::sqrt(sum);
            for (int j = 0; j <= i; ++j) row(i)[j] /= std::sqrt(sum);
        }
        out.set_diagonal();
        for (int i = 0; i < T; ++i)
            for (int l = 0; l < i; ++l) {
                double sum = 0.0;
                for (int j = 0; j <= l; ++j) sum += row(i)[j] * row(l)[j];
                out.set(i, l, sum);
            }
        for (int i = 0, k = 0; i < T; ++i)  // d row(i) = (e_j - row(i) L_ij) / length
            for (int j = 0; j < i; ++j, ++k)
                for (int l = 0; l < T; ++l)
                    if (l != i)
                        out.set_derivative(
                            k, i, l,
                            (row(l)[j] - out.C(i, l) * row(i)[j]) / length[static_cast<std::size_t>(i)]);
    }
};

}  // namespace lmmfast
