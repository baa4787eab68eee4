// Correlation as a table over pairs of levels: the interface of such structures.
//
// A structure is a type with a name and
//     static int n_params(int T)      their number for T levels, or any_number
//     static void table(int T, int n_params, const double* psi, double* C, double* dC)
// that fills C (T, T) and dC (n_params, T, T), both zero before. psi is unconstrained.
#pragma once

#include <cmath>
#include <vector>

#include "lmmfast/base/lanes.hpp"

namespace lmmfast {

inline constexpr int any_number = -1;

// A correlation and its derivatives, symmetric in the two levels.
class TableWriter {
  public:
    TableWriter(int T, double* C, double* dC) : T_(T), C_(C), dC_(dC) {}

    double C(int i, int j) const { return C_[at(0, i, j)]; }
    void set(int i, int j, double value) { C_[at(0, i, j)] = C_[at(0, j, i)] = value; }
    void set_derivative(int k, int i, int j, double value) { dC_[at(k, i, j)] = dC_[at(k, j, i)] = value; }
    void set_diagonal() {
        for (int i = 0; i < T_; ++i) set(i, i, 1.0);
    }

  private:
    Index at(int k, int i, int j) const { return (Index{k} * T_ + i) * T_ + j; }
    int T_;
    double *C_, *dC_;
};

// d tanh(psi) / d psi, without the cancellation of 1 - tanh^2
inline double tanh_derivative(double psi) {
    const double c = std::cosh(psi);
    return 1.0 / (c * c);
}

}  // namespace lmmfast
