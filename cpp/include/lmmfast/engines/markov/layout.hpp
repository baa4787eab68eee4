// Where the totals of a model with residual parameters lie in their flat buffer.
#pragma once

#include "lmmfast/base/lanes.hpp"

namespace lmmfast {

// logdet (1), trace (K), info (K, K), gram (p1, p1), quad (K, p1, p1), kr (K, K, p1, p1) on demand, with
// the parameters vech(Ddot) first and those of R after them.
struct MarkovLayout {
    int q = 0, p1 = 0, K_R = 0;
    bool with_kr = false;

    int K_D() const { return n_pairs(q); }
    int K() const { return K_D() + K_R; }
    Index square() const { return Index{p1} * p1; }
    Index trace(int k) const { return 1 + k; }
    Index info(int k, int l) const { return 1 + K() + Index{k} * K() + l; }
    Index gram() const { return info(K(), 0); }
    Index quad(int k) const { return gram() + square() * (1 + k); }
    Index kr(int k, int l) const { return quad(K()) + square() * (Index{k} * K() + l); }
    Index size() const { return with_kr ? kr(K(), 0) : quad(K()); }
};

}  // namespace lmmfast
