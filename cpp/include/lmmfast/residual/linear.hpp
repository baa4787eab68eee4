// Linear: 1 - d/l for d < l, beyond it zero; l = exp(psi). A correlation on a line, not in a plane.
#pragma once

#include "lmmfast/residual/distance.hpp"

namespace lmmfast {

class Linear {
  public:
    static constexpr const char* name = "linear";

    explicit Linear(double psi) : scaled_(psi) {}

    // Where d = l the derivative is that from shorter ranges, zero.
    Pack correlation(Pack d, Pack& by_psi) const {
        const Pack one = Pack::all(1.0), x = scaled_(d);
        by_psi = where_less(x, one, x);
        return choose_less(one, x, Pack::zero(), one - x);
    }

  private:
    ScaledDistance scaled_;
};

}  // namespace lmmfast
