// No allocation inside a kernel's loop: ten times the clusters, the same number of allocations.
#include <cstdlib>
#include <new>

#include "check.hpp"
#include "lmmfast/engines/moments/moments.hpp"

namespace {
std::atomic<long> n_allocations{0};
}

void* operator new(std::size_t size) {
    ++n_allocations;
    if (void* p = std::malloc(size)) return p;
    throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    ++n_allocations;
    const auto align = static_cast<std::size_t>(alignment);
    if (void* p = std::aligned_alloc(align, (size + align - 1) / align * align)) return p;
    throw std::bad_alloc();
}
void operator delete(void* p) noexcept {
    std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
    std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
    std::free(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
    std::free(p);
}

namespace lmmfast::testing::test_allocations {

TEST(allocations) {
    for (const int q : {1, 2, 5})
        for (const int p : {2, 4, 15}) {
            // Both within one partial sum: beyond that there is one set of sums for each.
            const Sample small(std::vector<int>(40, 3), q, p, 3), large(std::vector<int>(400, 3), q, p, 3);
            const std::vector<double> Lambda(static_cast<std::size_t>(q) * q, 0.5);
            Interrupt interrupt;
            const auto count = [&](const Sample& s) {
                const long before = n_allocations;
                evaluate_moments(s.blocks, Lambda.data(), s.sums.perp.data(), false, 1, interrupt);
                return n_allocations - before;
            };
            CHECK(count(small) == count(large));
        }
    std::puts("allocations: ok");
}

}  // namespace lmmfast::testing::test_allocations
