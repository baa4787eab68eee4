// Where clusters begin in rows that lie together, and the order of others by counting.
// Keys are the user's memory, to which somebody else may write while they are read: then what is found
// means nothing, but nothing is written or indexed outside the results.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "lmmfast/base/parallel.hpp"

namespace lmmfast {

struct KeysChanged : std::runtime_error {
    KeysChanged() : std::runtime_error("keys changed while they were read") {}
};

// Rows of one key behind one another. The rows are cut into parts, whose runs are counted, then placed:
// starts (n_runs + 1,) ends with the number of rows, and `ascending` says whether keys only grow.
// Throws KeysChanged where there are other runs to place than were counted.
template <class Key>
class Runs {
    static constexpr Index rows_in_part = 1 << 16, rows_worth_a_thread = 1 << 18, chunk = 1024;

  public:
    Runs(std::span<const Key> keys, int n_threads, Interrupt& interrupt)
        : keys_(keys),
          n_(static_cast<Index>(keys.size())),
          n_parts_(std::max<Index>(1, n_ / rows_in_part)),
          n_threads_(static_cast<int>(std::clamp<Index>(n_ / rows_worth_a_thread, 1, n_threads))),
          first_(static_cast<std::size_t>(n_parts_) + 1, 0) {
        parallel_for(n_parts_, n_threads_, interrupt, [&](Index part) {
            std::int32_t count = part == 0 && n_ > 0;
            const Key* k = keys_.data();
            for (Index row = std::max<Index>(1, begin(part)); row < begin(part + 1); ++row)
                count += k[row] != k[row - 1];
            first_[static_cast<std::size_t>(part) + 1] = count;
        });
        for (Index part = 0; part < n_parts_; ++part) first_[part + 1] += first_[part];
    }

    Index size() const { return first_.back(); }

    // Fills starts (size() + 1,) and the key of each run (size(),); says whether keys ascend.
    bool write(std::int64_t* starts, Key* run_keys, Interrupt& interrupt) const {
        std::atomic<bool> ascending{true}, changed{false};
        parallel_for(n_parts_, n_threads_, interrupt, [&](Index part) {
            Index at = first_[part];
            bool ascend = true;
            if (part == 0 && n_ > 0) {
                starts[at] = 0;
                run_keys[at++] = keys_[0];
            }
            const Index end = first_[part + 1];
            Index row = std::max<Index>(1, begin(part));
            for (; row < begin(part + 1); row += chunk) {
                std::array<std::int32_t, chunk> found;
                const Key* k = keys_.data() + row;
                const auto count = static_cast<std::int32_t>(std::min(chunk, begin(part + 1) - row));
                std::int32_t n_found = 0;
                for (std::int32_t i = 0; i < count; ++i) {
                    found[n_found] = i;
                    n_found += k[i] != k[i - 1];
                }
                if (n_found > end - at) break;
                for (std::int32_t f = 0; f < n_found; ++f, ++at) {
                    const Key key = k[found[f]];
                    starts[at] = row + found[f];
                    run_keys[at] = key;
                    ascend &= k[found[f] - 1] < key;
                }
            }
            if (at != end || row < begin(part + 1)) changed = true;
            if (!ascend) ascending = false;
        });
        if (changed) throw KeysChanged();
        starts[size()] = n_;
        return ascending;
    }

  private:
    Index begin(Index part) const { return part * n_ / n_parts_; }

    std::span<const Key> keys_;
    Index n_, n_parts_;
    int n_threads_;
    std::vector<Index> first_;  // (n_parts + 1,): the first run that begins in a part
};

// ptr (n_codes + 1,) and order (n,): rows order[ptr[i]] … order[ptr[i+1]-1] have code i, ascending, where
// the code of a row is keys[row] - low. Returns false where a code lies outside 0 … n_codes-1.
// Each thread counts and places rows of its own; the result does not depend on their number.
template <class Key>
bool counting_sort(std::span<const Key> keys, Key low, Index n_codes, std::span<std::int64_t> ptr,
                   std::span<std::int64_t> order, int n_threads, Interrupt& interrupt) {
    constexpr Index rows_worth_a_thread = 1 << 18;
    const auto n = static_cast<Index>(keys.size());
    if (n_codes > std::numeric_limits<std::uint32_t>::max()) return false;
    const Index n_parts = std::clamp<Index>(n / rows_worth_a_thread, 1, n_threads);
    // (part, code): first the rows of the part with this code, then where the next of them goes.
    std::vector<std::int64_t> place(static_cast<std::size_t>(n_parts * n_codes), 0);
    // What was counted is what is placed, whatever happens to the keys in between.
    const auto codes = std::make_unique_for_overwrite<std::uint32_t[]>(static_cast<std::size_t>(n));
    std::atomic<bool> inside{true};
    parallel_for(n_parts, n_threads, interrupt, [&](Index part) {
        std::int64_t* count = place.data() + part * n_codes;
        for (Index row = part * n / n_parts; row < (part + 1) * n / n_parts; ++row) {
            const volatile Key& key = keys[static_cast<std::size_t>(row)];  // read once
            const std::uint64_t code = static_cast<std::uint64_t>(key) - static_cast<std::uint64_t>(low);
            if (code >= static_cast<std::uint64_t>(n_codes)) {
                inside = false;
                return;
            }
            codes[static_cast<std::size_t>(row)] = static_cast<std::uint32_t>(code);
            ++count[code];
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
            order[static_cast<std::size_t>(to[codes[static_cast<std::size_t>(row)]]++)] = row;
    });
    return true;
}

}  // namespace lmmfast
