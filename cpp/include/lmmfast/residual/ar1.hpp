// Autoregressive of order one: rho^d with rho = tanh(psi), for whole numbers d. A negative rho alternates.
#pragma once

#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

class Ar1 {
  public:
    static constexpr const char* name = "ar1";

    // |rho| = tanh|psi| = 1 - 2 / (1 + exp(2|psi|)), whose logarithm stays finite: 0^0 = 1 below.
    explicit Ar1(double psi)
        : rho_(std::tanh(psi)),
          rho_by_psi_(1.0 / (std::cosh(psi) * std::cosh(psi))),
          log_abs_rho_(std::max(std::log1p(-2.0 / (1.0 + std::exp(2.0 * std::abs(psi)))), -1e3)) {}

    // Both contain rho^(d-1), which is exactly 1 at d = 1 and not looked at where d = 0.
    Pack correlation(Pack d, Pack& by_psi) const {
        const Pack one = Pack::all(1.0), half = Pack::all(0.5), exponent = d - one;
        Pack power = exp(exponent * log_abs_rho_);
        if (rho_ < 0.0) power = choose_less(floor(exponent * half), exponent * half, -power, power);
        by_psi = where_less(half, d, d * power * rho_by_psi_);
        return choose_less(d, half, one, power * rho_);
    }

  private:
    double rho_, rho_by_psi_, log_abs_rho_;
};

}  // namespace lmmfast
