// A number that tells whether an array is still what it was, at the speed of memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lmmfast/base/parallel.hpp"

namespace lmmfast {

// n items of `size` bytes (1, 2, 4 or 8), `stride` bytes apart.
struct Items {
    const char* first;
    Index n, stride;
    int size;
};

namespace fingerprints {

inline std::uint64_t mixed(std::uint64_t h) {
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
    return h ^ (h >> 31);
}

// Words of one block, in four chains: a multiplication takes longer than a load.
template <class Word>
std::uint64_t of_block(const char* at, Index n, Index stride, std::uint64_t seed) {
    std::uint64_t h[4] = {seed, ~seed, seed + 1, ~seed - 1};
    const auto take = [&](std::uint64_t& chain, Index k) {
        Word word;
        std::memcpy(&word, at + k * stride, sizeof word);
        chain = std::rotl(chain ^ static_cast<std::uint64_t>(word), 29) * 0x9E3779B97F4A7C15u;
    };
    Index k = 0;
    for (; k + 4 <= n; k += 4)
        for (int c = 0; c < 4; ++c) take(h[c], k + c);
    for (; k < n; ++k) take(h[k % 4], k);
    return mixed(h[0]) ^ mixed(h[1] + 1) ^ mixed(h[2] + 2) ^ mixed(h[3] + 3);
}

inline std::uint64_t of_block(const Items& items, Index begin, Index n, std::uint64_t seed) {
    const char* at = items.first + begin * items.stride;
    if (items.size == 8) return of_block<std::uint64_t>(at, n, items.stride, seed);
    if (items.size == 4) return of_block<std::uint32_t>(at, n, items.stride, seed);
    if (items.size == 2) return of_block<std::uint16_t>(at, n, items.stride, seed);
    return of_block<std::uint8_t>(at, n, items.stride, seed);
}

}  // namespace fingerprints

// The fingerprint of each array: other items, or the same in another order, give another one. It does not
// depend on the number of threads.
inline std::vector<std::uint64_t> fingerprint(const std::vector<Items>& arrays, int n_threads,
                                              Interrupt& interrupt) {
    constexpr Index block = 1 << 15, worth_a_thread = 8 * block;
    struct Task {
        std::size_t array;
        Index begin;
    };
    std::vector<Task> tasks;
    Index n_items = 0;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        for (Index begin = 0; begin < arrays[k].n; begin += block) tasks.push_back({k, begin});
        n_items += arrays[k].n;
    }
    const auto threads = static_cast<int>(std::min<Index>(n_threads, 1 + n_items / worth_a_thread));
    std::vector<std::uint64_t> found(tasks.size());
    parallel_for(static_cast<Index>(tasks.size()), threads, interrupt, [&](Index task) {
        const auto [k, begin] = tasks[static_cast<std::size_t>(task)];
        const Index n = std::min(block, arrays[k].n - begin);
        found[static_cast<std::size_t>(task)] = fingerprints::of_block(
            arrays[k], begin, n, fingerprints::mixed(static_cast<std::uint64_t>(begin)));
    });
    std::vector<std::uint64_t> sums(arrays.size());
    for (std::size_t k = 0; k < arrays.size(); ++k) sums[k] = static_cast<std::uint64_t>(arrays[k].n);
    for (std::size_t t = 0; t < tasks.size(); ++t) sums[tasks[t].array] += found[t];
    return sums;
}

}  // namespace lmmfast
