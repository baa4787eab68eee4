// Matérn of smoothness 5/2: (1 + a + a^2 / 3) exp(-a) with a = sqrt(5) d / l, l = exp(psi).
#pragma once

#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

class Matern52 {
  public:
    static constexpr const char* name = "matern52";

    explicit Matern52(double psi) : scaled_(psi) {}

    Pack correlation(Pack d, Pack& by_psi) const {
        const Pack one = Pack::all(1.0), a = scaled_(d) * std::sqrt(5.0), decay = exp(-a);
        const Pack third = a * a * (1.0 / 3.0);
        by_psi = third * (one + a) * decay;
        return (one + a + third) * decay;
    }

  private:
    ScaledDistance scaled_;
};

}  // namespace lmmfast
