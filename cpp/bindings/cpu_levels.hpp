// Which builds of the kernels a machine can run: what the CPU has and what the operating system saves.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#define LMMFAST_X86_64
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace lmmfast {

// The words of CPUID and XCR0 that name the instruction sets in question.
struct CpuWords {
    std::uint32_t leaf1_ecx = 0;
    std::uint32_t leaf7_ebx = 0;
    std::uint32_t extended_ecx = 0;  // of leaf 0x80000001
    std::uint64_t saved = 0;         // XCR0: registers that the operating system saves
};

// The levels of the x86-64 psABI. A compiler told -march=x86-64-v3 may use any instruction of that level, so
// all of them have to be there, not only the vector ones.
inline std::vector<std::string> cpu_levels(const CpuWords& words) {
    const auto all = [](std::uint64_t word, std::initializer_list<int> bits) {
        for (const int bit : bits)
            if (!(word >> bit & 1)) return false;
        return true;
    };
    std::vector<std::string> found{"base"};
    const bool v2 = all(words.leaf1_ecx, {0, 9, 13, 19, 20, 23}) &&  // SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT
                    all(words.extended_ecx, {0});                    // LAHF
    const bool v3 = v2 && all(words.leaf1_ecx, {12, 22, 27, 28, 29}) &&  // FMA MOVBE OSXSAVE AVX F16C
                    all(words.leaf7_ebx, {3, 5, 8}) &&                   // BMI1 AVX2 BMI2
                    all(words.extended_ecx, {5}) &&                      // LZCNT
                    all(words.saved, {1, 2});                            // XMM YMM
    const bool v4 = v3 && all(words.leaf7_ebx, {16, 17, 28, 30, 31}) &&  // AVX512 F DQ CD BW VL
                    all(words.saved, {5, 6, 7});                         // mask registers, ZMM
    if (v3) found.emplace_back("v3");
    if (v4) found.emplace_back("v4");
    return found;
}

#ifdef LMMFAST_X86_64
namespace detail {

// EAX EBX ECX EDX of a leaf, zero where the CPU does not have it.
inline std::array<std::uint32_t, 4> cpuid(std::uint32_t leaf) {
    std::array<std::uint32_t, 4> out{};
#ifdef _MSC_VER
    std::array<int, 4> words{};
    __cpuid(words.data(), static_cast<int>(leaf & 0x80000000u));
    if (static_cast<std::uint32_t>(words[0]) < leaf) return out;
    __cpuidex(words.data(), static_cast<int>(leaf), 0);
    for (int k = 0; k < 4; ++k) out[k] = static_cast<std::uint32_t>(words[k]);
#else
    __get_cpuid_count(leaf, 0, &out[0], &out[1], &out[2], &out[3]);
#endif
    return out;
}

// May be called only where CPUID reports OSXSAVE.
inline std::uint64_t xcr0() {
#ifdef _MSC_VER
    return _xgetbv(0);
#else
    std::uint32_t low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return std::uint64_t{high} << 32 | low;
#endif
}

}  // namespace detail
#endif

inline CpuWords cpu_words() {
    CpuWords words;
#ifdef LMMFAST_X86_64
    words.leaf1_ecx = detail::cpuid(1)[2];
    words.leaf7_ebx = detail::cpuid(7)[1];
    words.extended_ecx = detail::cpuid(0x80000001u)[2];
    if (words.leaf1_ecx >> 27 & 1) words.saved = detail::xcr0();
#endif
    return words;
}

}  // namespace lmmfast
