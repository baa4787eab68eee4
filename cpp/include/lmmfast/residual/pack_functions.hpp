// Functions of a pack that correlation functions are written in.
#pragma once

#include "lmmfast/base/packs.hpp"

namespace lmmfast {

// NaN where x is not finite: the rational function behind pexp hides what is not a number.
inline Pack exp(Pack x) {
    return multiply_add(x, Pack::zero(), {Eigen::internal::pexp(x.v)});
}

inline Pack floor(Pack x) {
    return {Eigen::internal::pfloor(x.v)};
}

// x < limit ? value : 0
inline Pack where_less(Pack x, Pack limit, Pack value) {
    return {Eigen::internal::pand(Eigen::internal::pcmp_lt(x.v, limit.v), value.v)};
}

// x < limit ? a : b
inline Pack choose_less(Pack x, Pack limit, Pack a, Pack b) {
    return {Eigen::internal::pselect(Eigen::internal::pcmp_lt(x.v, limit.v), a.v, b.v)};
}

}  // namespace lmmfast
