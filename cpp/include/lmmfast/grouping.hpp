// Rows in the order of their clusters, by counting.
#pragma once

#include <algorithm>
#include <atomic>
#include <span>
#include <vector>

#include "lmmfast/parallel.hpp"

namespace lmmfast {

// ptr (n_codes + 1,) and order (n,): rows order[ptr[i]] … order[ptr[i+1]-1] have code i, ascending, where
// the code of a row is keys[row] - low. Returns false where a code lies outside 0 … n_codes-1.
// Each thread counts and places rows of its own; the result does not depend on their number.
template <class Key>
bool counting_sort(std::span<const Key> keys, Key low, Index n_codes, std::span<std::int64_t> ptr,
                   std::span<std::int64_t> order, int n_threads, Interrupt& interrupt) {
    constexpr Index rows_worth_a_thread = 1 << 18;
    const auto n = static_cast<Index>(keys.size());
    const Index n_parts = std::clamp<Index>(n / rows_worth_a_thread, 1, n_threads);
    // (part, code): first the rows of the part with this code, then where the next of them goes.
    std::vector<std::int64_t> place(static_cast<std::size_t>(n_parts * n_codes), 0);
    const auto code = [&](Index row) {
        return static_cast<Index>(static_cast<std::uint64_t>(keys[static_cast<std::size_t>(row)]) -
                                  static_cast<std::uint64_t>(low));
    };
    std::atomic<bool> inside{true};
    parallel_for(n_parts, n_threads, interrupt, [&](Index part) {
        std::int64_t* count = place.data() + part * n_codes;
        for (Index row = part * n / n_parts; row < (part + 1) * n / n_parts; ++row) {
            const Index c = code(row);
            if (c < 0 || c >= n_codes) {
                inside = false;
                return;
            }
            ++count[c];
        }
    });
    if (!inside) return false;
    std::int64_t next = 0;
    for (Index c = 0; c < n_codes; ++c) {
        ptr[static_cast<std::size_t>(c)] = next;
        for (Index part = 0; part < n_parts; ++part) {
            std::int64_t& here = place[static_cast<std::size_t>(part * n_codes + c)];
            next += std::exchange(here, next);
        }
    }
    ptr[static_cast<std::size_t>(n_codes)] = next;
    parallel_for(n_parts, n_threads, interrupt, [&](Index part) {
        std::int64_t* to = place.data() + part * n_codes;
        for (Index row = part * n / n_parts; row < (part + 1) * n / n_parts; ++row)
            order[static_cast<std::size_t>(to[code(row)]++)] = row;
    });
    return true;
}

}  // namespace lmmfast
