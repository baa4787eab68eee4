// Any change, and any change of order, gives another fingerprint; threads do not matter.
#include "check.hpp"
#include "lmmfast/rows/fingerprint.hpp"

namespace lmmfast::testing::test_fingerprint {

TEST(fingerprint) {
    std::vector<double> values(100'000);
    for (std::size_t k = 0; k < values.size(); ++k) values[k] = static_cast<double>(k % 77);
    const Items items{reinterpret_cast<const char*>(values.data()), static_cast<Index>(values.size()), 8, 8};
    Interrupt interrupt;
    const auto of = [&](const Items& one, int n_threads) {
        return fingerprint({one}, n_threads, interrupt).front();
    };
    const auto before = of(items, 1);
    CHECK(of(items, 4) == before);
    for (const std::size_t k : {std::size_t{0}, std::size_t{32767}, std::size_t{32768}, values.size() - 1}) {
        const double was = std::exchange(values[k], -1.0);
        CHECK(of(items, 2) != before);
        values[k] = was;
        CHECK(of(items, 2) == before);
    }
    std::swap(values[3], values[70'000]);
    CHECK(of(items, 2) != before);
    std::swap(values[3], values[70'000]);
    for (const int size : {1, 2, 4, 8}) {
        const Items some{items.first, 1000, 16, size};
        const auto one = of(some, 1);
        values[1] += 1.0;  // between the items
        CHECK(of(some, 1) == one);
        CHECK(of({items.first, 999, 16, size}, 1) != one);
        values[1] -= 1.0;
    }
    CHECK(of({items.first, 0, 8, 8}, 1) == 0);
    std::puts("fingerprint: ok");
}

}  // namespace lmmfast::testing::test_fingerprint
