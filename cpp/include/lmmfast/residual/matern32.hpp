// Matérn of smoothness 3/2: (1 + a) exp(-a) with a = sqrt(3) d / l, l = exp(psi).
#pragma once

#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

class Matern32 {
  public:
    static constexpr const char* name = "matern32";

    explicit Matern32(double psi) : scaled_(psi) {}

    Pack correlation(Pack d, Pack& by_psi) const {
        const Pack a = scaled_(d) * std::sqrt(3.0), decay = exp(-a);
        by_psi = a * a * decay;
        return multiply_add(a, decay, decay);
    }

  private:
    ScaledDistance scaled_;
};

}  // namespace lmmfast
