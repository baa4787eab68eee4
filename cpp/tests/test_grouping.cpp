// Counting sort: stable, complete, the same for any number of threads, safe against keys outside the range.
#include <cstdint>

#include "check.hpp"
#include "lmmfast/rows/grouping.hpp"

namespace lmmfast::testing::test_grouping {

namespace {

template <class Key>
bool sort(const std::vector<Key>& keys, Key low, Index n_codes, std::vector<std::int64_t>& ptr,
          std::vector<std::int64_t>& order, int n_threads = 1) {
    Interrupt interrupt;
    ptr.assign(static_cast<std::size_t>(n_codes) + 1, -1);
    order.assign(keys.size(), -1);
    return counting_sort<Key>(keys, low, n_codes, ptr, order, n_threads, interrupt);
}

void test_few() {
    std::vector<std::int64_t> ptr, order;
    CHECK((sort<std::int64_t>({2, 0, 2, 1, 0, 4}, 0, 5, ptr, order)));
    CHECK((ptr == std::vector<std::int64_t>{0, 2, 3, 5, 5, 6}));
    CHECK((order == std::vector<std::int64_t>{1, 4, 3, 0, 2, 5}));
    CHECK((sort<std::int8_t>({-3, -5, -3}, -5, 3, ptr, order)));
    CHECK((ptr == std::vector<std::int64_t>{0, 1, 1, 3}));
    CHECK((sort<std::uint8_t>({250, 255}, 250, 6, ptr, order)));
    CHECK((order == std::vector<std::int64_t>{0, 1}));
    CHECK((!sort<std::int64_t>({2, 0, 4}, 0, 4, ptr, order)));
    CHECK((!sort<std::int64_t>({-1}, 0, 4, ptr, order)));
    CHECK((!sort<std::uint8_t>({249}, 250, 6, ptr, order)));
    constexpr auto least = std::numeric_limits<std::int64_t>::min();
    CHECK((!sort<std::int64_t>({std::numeric_limits<std::int64_t>::max()}, least, 4, ptr, order)));
}

// Runs against the definition, in one part and in several, with threads.
template <class Key>
void check_runs(const std::vector<Key>& keys) {
    std::vector<std::int64_t> starts;
    std::vector<Key> of_run;
    for (std::size_t row = 0; row < keys.size(); ++row)
        if (row == 0 || keys[row] != keys[row - 1]) {
            starts.push_back(static_cast<std::int64_t>(row));
            of_run.push_back(keys[row]);
        }
    const bool ascending =
        std::adjacent_find(of_run.begin(), of_run.end(), std::greater_equal<Key>()) == of_run.end();
    starts.push_back(static_cast<std::int64_t>(keys.size()));
    for (const int n_threads : {1, 3}) {
        Interrupt interrupt;
        const Runs<Key> runs(keys, n_threads, interrupt);
        CHECK(runs.size() == static_cast<Index>(of_run.size()));
        std::vector<std::int64_t> found(starts.size(), -1);
        std::vector<Key> found_keys(of_run.size());
        CHECK(runs.write(found.data(), found_keys.data(), interrupt) == ascending);
        CHECK(found == starts);
        CHECK(found_keys == of_run);
    }
}
void test_runs() {
    check_runs<std::int64_t>({});
    check_runs<std::int64_t>({7});
    check_runs<std::uint8_t>({1, 1, 200, 200, 255});
    check_runs<std::int8_t>({1, 1, -2, -2, 1});
    std::vector<std::int64_t> many(600000);
    for (std::size_t row = 0; row < many.size(); ++row) many[row] = static_cast<std::int64_t>(row / 3 * 5);
    check_runs(many);
    many[400000] = -1;
    check_runs(many);
}

void test_threads() {
    std::vector<std::int32_t> keys(1 << 20);
    std::uint32_t state = 1;
    for (auto& key : keys)
        key = static_cast<std::int32_t>((state = state * 1664525u + 1013904223u) >> 15) - 7;
    std::vector<std::int64_t> ptr, order, ptr_3, order_3;
    CHECK((sort<std::int32_t>(keys, -7, 1 << 17, ptr, order)));
    CHECK((sort<std::int32_t>(keys, -7, 1 << 17, ptr_3, order_3, 3)));
    CHECK(ptr == ptr_3);
    CHECK(order == order_3);
}

}  // namespace

TEST(grouping) {
    test_runs();
    test_few();
    test_threads();
    std::puts("grouping: ok");
}

}  // namespace lmmfast::testing::test_grouping
