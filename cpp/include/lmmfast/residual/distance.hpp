// Correlation as a function of the distance between two rows: the interface of such structures.
//
// A structure is a type with a name, a constructor from its one working parameter psi (unconstrained) and
//     Pack correlation(Pack d, Pack& by_psi) const
// for distances d >= 0, with correlation 1 and derivative 0 at d = 0.
#pragma once

#include <algorithm>
#include <cmath>

#include "lmmfast/residual/pack_functions.hpp"

namespace lmmfast {

class DistanceCorrelation {
  public:
    virtual ~DistanceCorrelation() = default;
    // C and dC/dpsi of distances d, all (count,). dC may be null.
    virtual void evaluate(const double* d, Index count, double* C, double* dC) const = 0;
};

template <class Structure>
class DistanceCorrelationOf final : public DistanceCorrelation {
  public:
    explicit DistanceCorrelationOf(double psi) : structure_(psi) {}

    void evaluate(const double* d, Index count, double* C, double* dC) const override {
        Index k = 0;
        for (; k + Pack::size <= count; k += Pack::size) {
            Pack by_psi;
            const Pack value = structure_.correlation(Pack::load_unaligned(d + k), by_psi);
            Eigen::internal::pstoreu(C + k, value.v);
            if (dC) Eigen::internal::pstoreu(dC + k, by_psi.v);
        }
        if (k < count) evaluate_last(d + k, static_cast<int>(count - k), C + k, dC ? dC + k : nullptr);
    }

  private:
    void evaluate_last(const double* d, int count, double* C, double* dC) const {
        double part[Pack::size] = {};
        std::copy_n(d, count, part);
        Pack by_psi;
        const Pack value = structure_.correlation(Pack::load_unaligned(part), by_psi);
        Eigen::internal::pstoreu(part, value.v);
        std::copy_n(part, count, C);
        if (!dC) return;
        Eigen::internal::pstoreu(part, by_psi.v);
        std::copy_n(part, count, dC);
    }

    Structure structure_;
};

// Distances in units of a length exp(psi), cut at `far`, where a correlation that falls exponentially is
// zero to the last bit, so that no infinity arises from short lengths.
class ScaledDistance {
  public:
    explicit ScaledDistance(double psi, double far = 1e3)
        : length_inv_(std::min(std::exp(-psi), 1e300)), far_(far) {}

    Pack operator()(Pack d) const {
        const Pack x = d * length_inv_, far = Pack::all(far_);
        return choose_less(far, x, far, x);
    }

  private:
    double length_inv_, far_;
};

}  // namespace lmmfast
