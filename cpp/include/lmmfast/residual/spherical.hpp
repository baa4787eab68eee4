// Spherical: 1 - 1.5 d/l + 0.5 (d/l)^3 for d < l, beyond it zero; l = exp(psi).
#pragma once

#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

class Spherical {
  public:
    static constexpr const char* name = "spherical";

    explicit Spherical(double psi) : scaled_(psi) {}

    // With y = 1 - x: 1 - 1.5 x + 0.5 x^3 = y^2 (3 - y) / 2, which does not cancel near x = 1.
    Pack correlation(Pack d, Pack& by_psi) const {
        const Pack one = Pack::all(1.0), x = scaled_(d);
        const Pack y = choose_less(one, x, Pack::zero(), one - x);
        by_psi = x * y * (one + x) * 1.5;
        return y * y * (Pack::all(3.0) - y) * 0.5;
    }

  private:
    ScaledDistance scaled_;
};

}  // namespace lmmfast
