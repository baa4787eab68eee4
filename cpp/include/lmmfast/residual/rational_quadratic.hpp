// Rational quadratic: 1 / (1 + (d/l)^2) with l = exp(psi).
#pragma once

#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

class RationalQuadratic {
  public:
    static constexpr const char* name = "rational_quadratic";

    // It falls slowly: distances are cut where the square is still finite.
    explicit RationalQuadratic(double psi) : scaled_(psi, 1e150) {}

    Pack correlation(Pack d, Pack& by_psi) const {
        const Pack x = scaled_(d), square = x * x;
        const Pack C = (Pack::all(1.0) + square).inverse();
        by_psi = square * C * C * 2.0;
        return C;
    }

  private:
    ScaledDistance scaled_;
};

}  // namespace lmmfast
