// Eight clusters side by side: the scalar of the kernels is a vector of eight doubles.
#pragma once

// Threads may have little stack (128 kB with musl): Eigen's temporaries go to the heap early.
#ifndef EIGEN_STACK_ALLOCATION_LIMIT
#define EIGEN_STACK_ALLOCATION_LIMIT 32768
#endif
#include <Eigen/Core>
#include <cstdint>

#if EIGEN_FAST_MATH
#error \
    "Eigen's fast square roots give away the last bits: compile with EIGEN_FAST_MATH=0, as lmmfast::core does"
#endif

namespace lmmfast {

using Index = std::int64_t;

inline constexpr int lanes = 8;
using Lane = Eigen::Array<double, lanes, 1>;
using LaneMap = Eigen::Map<Lane, Eigen::Aligned64>;
using ConstLaneMap = Eigen::Map<const Lane, Eigen::Aligned64>;

// The most random effects a cluster may have.
inline constexpr int max_q = 10;

// Number of pairs a <= b out of q: entries of vech of a symmetric (q, q) matrix.
constexpr int n_pairs(int q) {
    return q * (q + 1) / 2;
}

// Position of the pair a <= b in vech: lower triangle by columns, (0,0) (1,0) ... (q-1,0) (1,1) ...
constexpr int pair_index(int a, int b, int q) {
    return a * q - a * (a - 1) / 2 + (b - a);
}

}  // namespace lmmfast
