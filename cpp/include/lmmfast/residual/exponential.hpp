// Exponential decay: exp(-d / l) with l = exp(psi). In time the Ornstein-Uhlenbeck process, in space
// Matérn's correlation of smoothness 1/2; for rho = exp(-1/l) SAS's "power".
#pragma once

#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

class Exponential {
  public:
    static constexpr const char* name = "exponential";

    explicit Exponential(double psi) : scaled_(psi) {}

    Pack correlation(Pack d, Pack& by_psi) const {
        const Pack x = scaled_(d), C = exp(-x);
        by_psi = x * C;
        return C;
    }

  private:
    ScaledDistance scaled_;
};

}  // namespace lmmfast
