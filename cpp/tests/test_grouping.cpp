// Counting sort: stable, complete, and safe against codes outside the range.
#include "check.hpp"
#include "lmmfast/grouping.hpp"

using namespace lmmfast;

int main() {
    const std::vector<std::int64_t> codes{2, 0, 2, 1, 0, 4};
    std::vector<std::int64_t> ptr(6), order(codes.size());
    CHECK(counting_sort(codes, 5, ptr, order));
    CHECK((ptr == std::vector<std::int64_t>{0, 2, 3, 5, 5, 6}));
    CHECK((order == std::vector<std::int64_t>{1, 4, 3, 0, 2, 5}));
    std::vector<std::int64_t> short_ptr(5);
    CHECK(!counting_sort(codes, 4, short_ptr, order));
    const std::vector<std::int64_t> negative{-1};
    std::vector<std::int64_t> one(1);
    CHECK(!counting_sort(negative, 4, short_ptr, one));
    std::puts("grouping: ok");
}
