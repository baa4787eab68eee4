// Rows in the order of their clusters, by counting.
#pragma once

#include <span>
#include <vector>

#include "lmmfast/lanes.hpp"

namespace lmmfast {

// ptr (n_codes + 1,) and order (n,): rows order[ptr[i]] … order[ptr[i+1]-1] have code i, ascending.
// Returns false where a code lies outside 0 … n_codes-1.
inline bool counting_sort(std::span<const std::int64_t> codes, Index n_codes, std::span<std::int64_t> ptr,
                          std::span<std::int64_t> order) {
    std::fill(ptr.begin(), ptr.end(), 0);
    for (const auto code : codes) {
        if (code < 0 || code >= n_codes) return false;
        ++ptr[static_cast<std::size_t>(code) + 1];
    }
    for (std::size_t i = 1; i < ptr.size(); ++i) ptr[i] += ptr[i - 1];
    std::vector<std::int64_t> next(ptr.begin(), ptr.end() - 1);
    for (std::size_t row = 0; row < codes.size(); ++row)
        order[static_cast<std::size_t>(next[static_cast<std::size_t>(codes[row])]++)] =
            static_cast<std::int64_t>(row);
    return true;
}

}  // namespace lmmfast
