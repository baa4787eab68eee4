// Gaussian (squared exponential): exp(-(d / l)^2) with l = exp(psi).
#pragma once

#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

class Gaussian {
  public:
    static constexpr const char* name = "gaussian";

    explicit Gaussian(double psi) : scaled_(psi) {}

    Pack correlation(Pack d, Pack& by_psi) const {
        const Pack x = scaled_(d), x2 = x * x, C = exp(-x2);
        by_psi = x2 * C * 2.0;
        return C;
    }

  private:
    ScaledDistance scaled_;
};

}  // namespace lmmfast
