// Nested factors around innermost units of which another engine gives the totals, as where their residuals
// have a structure.
#pragma once

#include "lmmfast/engines/nested/nested.hpp"

namespace lmmfast {

// Totals (m, size) of the innermost units inside each unit of the lowest outer level, in the order of Totals,
// with kr: P columns, parameters vech of the innermost level and then those of the residuals.
class GivenSums {
  public:
    GivenSums(const NestedTree& tree, const double* units, bool with_kr)
        : units_(units),
          unit_(tree.handed_out(tree.depth() - 1, with_kr)),
          given_{unit_.K, unit_.P, true},
          total_(tree.total(with_kr)),
          sums_(static_cast<std::size_t>(total_.kr()), 0.0) {}

    void of_unit(Index i, double* unit) {
        const double* from = units_ + i * given_.size();
        take_triangle(from + given_.gram(), unit, &sums_[total_.gram()]);
        sums_[total_.logdet()] += from[0];
        for (int k = 0; k < unit_.K; ++k) {
            take_triangle(from + given_.quad(k), unit + unit_.quad(k) * lanes, &sums_[total_.quad(k)]);
            sums_[total_.trace() + k] += from[given_.trace(k)];
            for (int l = k; l < unit_.K; ++l) {
                sums_[total_.info(k, l)] += from[given_.info(k, l)];
                const double* kr = from + given_.kr(k, l);
                double* to = unit + unit_.kr(k, l) * lanes;
                for (int a = 0; a < unit_.n_kr; ++a)
                    for (int b = 0; b < unit_.n_kr; ++b, to += lanes) *to = kr[a * unit_.P + b];
            }
        }
    }
    void finish(double* total) const {
        for (std::size_t e = 0; e < sums_.size(); ++e) total[e] += sums_[e];
    }

  private:
    void take_triangle(const double* square, double* unit, double* total) const {
        for (int a = 0; a < unit_.P; ++a)
            for (int b = a; b < unit_.P; ++b)
                if (a < unit_.o) {
                    *unit = square[a * unit_.P + b];
                    unit += lanes;
                } else {
                    *total++ += square[a * unit_.P + b];
                }
    }

    const double* units_;
    UnitLayout unit_;
    DenseTotalsLayout given_;
    TotalLayout total_;
    std::vector<double> sums_;
};

// Totals of all units from those of the innermost ones.
inline std::vector<double> absorb_nested(const NestedTree& tree, const double* units, const double* Lambda,
                                         bool with_kr, int n_threads, Interrupt& interrupt,
                                         NestedRecord* record = nullptr) {
    return detail::sum_nested(tree, tree.levels[tree.depth() - 2].m, with_kr, n_threads, interrupt,
                              [&](const detail::NestedTasks& tasks, Index k, double* out) {
                                  GivenSums inner(tree, units, with_kr);
                                  NestedSweep<GivenSums> sweep(tree, Lambda, with_kr, inner, record);
                                  tasks.each(k, [&](Index first, Index n) {
                                      interrupt.check();
                                      sweep.add(first, n);
                                  });
                                  sweep.finish(out);
                              });
}

}  // namespace lmmfast
