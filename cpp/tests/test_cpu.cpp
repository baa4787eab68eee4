// Instruction sets: decoding of made-up machines, and of this one against the compiler's own test.
#include <algorithm>

#include "check.hpp"
#include "cpu_levels.hpp"

namespace lmmfast::testing::test_cpu {

namespace {

using Levels = std::vector<std::string>;

constexpr CpuWords skylake_server{0xfffa3203u, 0xd19ffffbu, 0x121u, 0xe7u};

template <class Change>
Levels changed(const Change& change) {
    CpuWords words = skylake_server;
    change(words);
    return cpu_levels(words);
}

}  // namespace

TEST(cpu) {
    const Levels base{"base"}, v3{"base", "v3"}, v4{"base", "v3", "v4"};
    CHECK(cpu_levels(CpuWords{}) == base);
    CHECK(cpu_levels(skylake_server) == v4);
    CHECK(changed([](CpuWords& w) { w.leaf7_ebx &= ~(1u << 31); }) == v3);    // no AVX512VL
    CHECK(changed([](CpuWords& w) { w.saved = 0x7; }) == v3);                 // ZMM not saved
    CHECK(changed([](CpuWords& w) { w.saved = 0x3; }) == base);               // YMM not saved
    CHECK(changed([](CpuWords& w) { w.leaf1_ecx &= ~(1u << 12); }) == base);  // no FMA
    CHECK(changed([](CpuWords& w) { w.extended_ecx = 0x1; }) == base);        // no LZCNT: would run as BSR
#if defined(__x86_64__) && defined(__GNUC__)
    const Levels here = cpu_levels(cpu_words());
    const auto has = [&](const char* level) {
        return std::find(here.begin(), here.end(), level) != here.end();
    };
    __builtin_cpu_init();
    CHECK(has("v3") == (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")));
    CHECK(has("v4") == (has("v3") && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")));
#endif
    std::puts("cpu: ok");
}

}  // namespace lmmfast::testing::test_cpu
