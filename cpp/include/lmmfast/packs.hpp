// The scalar of the kernels: as many doubles as a register holds, one cluster each.
#pragma once

#include <cmath>
#include <utility>

#include "lmmfast/lanes.hpp"

namespace lmmfast {

struct Pack {
    using Packet = Eigen::internal::packet_traits<double>::type;
    static constexpr int size = Eigen::internal::packet_traits<double>::size;
    Packet v;

    static Pack load(const double* p) { return {Eigen::internal::pload<Packet>(p)}; }
    static Pack load_unaligned(const double* p) { return {Eigen::internal::ploadu<Packet>(p)}; }
    static Pack all(double x) { return {Eigen::internal::pset1<Packet>(x)}; }
    static Pack zero() { return all(0.0); }
    void store(double* p) const { Eigen::internal::pstore(p, v); }
    double sum() const { return Eigen::internal::predux(v); }
    Pack sqrt() const { return {Eigen::internal::psqrt(v)}; }
    Pack log() const {
        double x[size];
        Eigen::internal::pstoreu(x, v);
        for (double& value : x) value = std::log(value);
        return load_unaligned(x);
    }
    Pack inverse() const { return {Eigen::internal::pdiv(Eigen::internal::pset1<Packet>(1.0), v)}; }

    friend Pack operator+(Pack a, Pack b) { return {Eigen::internal::padd(a.v, b.v)}; }
    friend Pack operator-(Pack a) { return {Eigen::internal::pnegate(a.v)}; }
    friend Pack operator-(Pack a, Pack b) { return {Eigen::internal::psub(a.v, b.v)}; }
    friend Pack operator*(Pack a, Pack b) { return {Eigen::internal::pmul(a.v, b.v)}; }
    friend Pack operator/(Pack a, Pack b) { return {Eigen::internal::pdiv(a.v, b.v)}; }
    friend Pack operator*(Pack a, double b) { return a * all(b); }
    Pack& operator+=(Pack b) { return *this = *this + b; }
    Pack& operator-=(Pack b) { return *this = *this - b; }
    Pack& operator*=(Pack b) { return *this = *this * b; }
    // a b + c, fused where the processor can
    friend Pack multiply_add(Pack a, Pack b, Pack c) { return {Eigen::internal::pmadd(a.v, b.v, c.v)}; }
};

// Packs in a block of eight clusters.
inline constexpr int packs_per_block = lanes / Pack::size;
static_assert(lanes % Pack::size == 0);

// call(0), …, call(N - 1) with the index as a compile-time constant: arrays indexed by it stay in
// registers.
template <int N, class Call>
inline void unroll(Call&& call) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
        (call(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

}  // namespace lmmfast
