// Which levels of two grouping factors meet in the data, and where each row's pair of them is kept.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "lmmfast/rows/grouping.hpp"

namespace lmmfast {

using Codes = std::vector<std::int32_t>;

// Level i of the first factor meets the levels other[ptr[i]] … other[ptr[i+1]-1] of the second, ascending;
// row r has the pair slot[r].
struct LevelPairs {
    std::vector<Index> ptr;
    std::vector<std::int32_t> other;
    std::vector<std::int32_t> slot;
};

namespace detail {

// The distinct levels that the rows of one level have, ascending; `seen` is all -1 before and after.
inline void distinct_levels(std::span<const std::int64_t> rows, const Codes& codes,
                            std::vector<std::int32_t>& seen, std::vector<std::int32_t>& found) {
    found.clear();
    for (const std::int64_t row : rows) {
        const std::int32_t level = codes[static_cast<std::size_t>(row)];
        std::int32_t& mark = seen[static_cast<std::size_t>(level)];
        if (mark < 0) found.push_back(level);
        mark = 0;
    }
    std::sort(found.begin(), found.end());
    for (const std::int32_t level : found) seen[static_cast<std::size_t>(level)] = -1;
}

}  // namespace detail

// ptr and order of the rows by their level of the first factor come from counting_sort.
inline LevelPairs level_pairs(std::span<const std::int64_t> ptr, std::span<const std::int64_t> order,
                              const Codes& second, Index n_second, int n_threads, Interrupt& interrupt) {
    const auto m = static_cast<Index>(ptr.size()) - 1;
    constexpr Index rows_worth_a_task = 1 << 15;
    const auto n_tasks = std::clamp<Index>(static_cast<Index>(order.size()) / rows_worth_a_task, 1, 64);
    const auto begin = [&](Index task) { return task * m / n_tasks; };
    const auto rows_of = [&](Index i) {
        const auto k = static_cast<std::size_t>(i);
        return order.subspan(static_cast<std::size_t>(ptr[k]), static_cast<std::size_t>(ptr[k + 1] - ptr[k]));
    };
    LevelPairs out;
    out.ptr.assign(static_cast<std::size_t>(m) + 1, 0);
    out.slot.resize(order.size());
    std::vector<std::vector<std::int32_t>> parts(static_cast<std::size_t>(n_tasks));
    parallel_for(n_tasks, n_threads, interrupt, [&](Index task) {
        std::vector<std::int32_t> seen(static_cast<std::size_t>(n_second), -1), found;
        auto& part = parts[static_cast<std::size_t>(task)];
        for (Index i = begin(task); i < begin(task + 1); ++i) {
            detail::distinct_levels(rows_of(i), second, seen, found);
            // Positions within the level for now; the start of the level is added below.
            for (std::size_t k = 0; k < found.size(); ++k)
                seen[static_cast<std::size_t>(found[k])] = static_cast<std::int32_t>(k);
            for (const std::int64_t row : rows_of(i))
                out.slot[static_cast<std::size_t>(row)] =
                    seen[static_cast<std::size_t>(second[static_cast<std::size_t>(row)])];
            for (const std::int32_t level : found) seen[static_cast<std::size_t>(level)] = -1;
            part.insert(part.end(), found.begin(), found.end());
            out.ptr[static_cast<std::size_t>(i) + 1] = static_cast<Index>(found.size());
        }
    });
    for (std::size_t i = 0; i < static_cast<std::size_t>(m); ++i) out.ptr[i + 1] += out.ptr[i];
    out.other.reserve(static_cast<std::size_t>(out.ptr.back()));
    for (const auto& part : parts) out.other.insert(out.other.end(), part.begin(), part.end());
    parallel_for(n_tasks, n_threads, interrupt, [&](Index task) {
        for (Index i = begin(task); i < begin(task + 1); ++i)
            for (const std::int64_t row : rows_of(i))
                out.slot[static_cast<std::size_t>(row)] +=
                    static_cast<std::int32_t>(out.ptr[static_cast<std::size_t>(i)]);
    });
    return out;
}

}  // namespace lmmfast
