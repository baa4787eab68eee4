// The scalar of the kernels: as many doubles as a register holds, one cluster each.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lmmfast/base/lanes.hpp"

// Everything a function calls becomes part of it, so that packs stay in registers. Not in sanitized code,
// which takes minutes to compile then.
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__SANITIZE_ADDRESS__)
#define LMMFAST_FLATTEN __attribute__((flatten))
#else
#define LMMFAST_FLATTEN
#endif

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
    void store_unaligned(double* p) const { Eigen::internal::pstoreu(p, v); }
    double sum() const { return Eigen::internal::predux(v); }
    // Whether all bits are
    bool is_zero() const {
        std::uint64_t words[size], any = 0;
        std::memcpy(words, &v, sizeof v);
        for (const std::uint64_t word : words) any |= word;
        return any == 0;
    }
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

// Transposes: lane k of pack r becomes base[from[k] + r], r = 0 … n - 1, n at most Pack::size. Reads a pack
// from each place.
template <class Offset>
inline void load_transposed(const double* base, const Offset* from, int n, Pack* out) {
#ifdef EIGEN_VECTORIZE_AVX512
    // In halves of four rows: clusters k and k + 2 share a register, so that two steps are enough.
    const auto pair = [&](int k, int row) {
        return _mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd(base + from[k] + row)),
                                  _mm256_loadu_pd(base + from[k + 2] + row), 1);
    };
    constexpr int even = 0x88, odd = 0xdd;
    for (int r = 0; r < n; r += 4) {
        const __m512d a = pair(0, r), b = pair(1, r), c = pair(4, r), d = pair(5, r);
        const __m512d ab = _mm512_unpacklo_pd(a, b), cd = _mm512_unpacklo_pd(c, d);
        const __m512d ab_high = _mm512_unpackhi_pd(a, b), cd_high = _mm512_unpackhi_pd(c, d);
        out[r].v = _mm512_shuffle_f64x2(ab, cd, even);
        out[r + 1].v = _mm512_shuffle_f64x2(ab_high, cd_high, even);
        out[r + 2].v = _mm512_shuffle_f64x2(ab, cd, odd);
        out[r + 3].v = _mm512_shuffle_f64x2(ab_high, cd_high, odd);
    }
#else
    Eigen::internal::PacketBlock<Pack::Packet, Pack::size> square;
    for (int k = 0; k < Pack::size; ++k) square.packet[k] = Pack::load_unaligned(base + from[k]).v;
    Eigen::internal::ptranspose(square);
    for (int r = 0; r < n; ++r) out[r].v = square.packet[r];
#endif
}

// call(0), …, call(N - 1) with the index as a compile-time constant: arrays indexed by it stay in
// registers.
template <int N, class Call>
inline void unroll(Call&& call) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
        (call(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

// Sizes that the compiler gets to know: loops unroll, and the small matrices stay in registers.
#ifndef LMMFAST_MAX_FIXED_Q
#define LMMFAST_MAX_FIXED_Q 3
#endif
#ifndef LMMFAST_MAX_FIXED_P1
#define LMMFAST_MAX_FIXED_P1 6
#endif
inline constexpr int max_fixed_q = LMMFAST_MAX_FIXED_Q, max_fixed_p1 = LMMFAST_MAX_FIXED_P1;

// A run-time size as a compile-time one: call(std::integral_constant<int, N>), 0 beyond `Max`.
template <int Max, int N = 1, class Call>
void with_fixed_size(int size, const Call& call) {
    if constexpr (N > Max) {
        call(std::integral_constant<int, 0>{});
    } else if (size == N) {
        call(std::integral_constant<int, N>{});
    } else {
        with_fixed_size<Max, N + 1>(size, call);
    }
}

}  // namespace lmmfast
