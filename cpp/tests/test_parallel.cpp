// All tasks run once; exceptions and stop requests come through, on any number of threads.
#include "check.hpp"
#include "lmmfast/base/parallel.hpp"

namespace lmmfast::testing::test_parallel {

TEST(parallel) {
    for (const int n_threads : {1, 2, 5}) {
        std::vector<std::atomic<int>> done(1000);
        Interrupt interrupt;
        parallel_for(1000, n_threads, interrupt, [&](Index k) { ++done[static_cast<std::size_t>(k)]; });
        for (const auto& count : done) CHECK(count == 1);

        bool caught = false;
        try {
            parallel_for(1000, n_threads, interrupt, [](Index k) {
                if (k == 500) throw std::logic_error("task 500");
            });
        } catch (const std::logic_error&) {
            caught = true;
        }
        CHECK(caught);

        Interrupt asked([] { return true; });
        caught = false;
        try {
            parallel_for(100000, n_threads, asked,
                         [](Index) { std::this_thread::sleep_for(std::chrono::microseconds(100)); });
        } catch (const Interrupted&) {
            caught = true;
        }
        CHECK(caught);
    }
    Interrupt interrupt;
    parallel_for(0, 4, interrupt, [](Index) { CHECK(false); });
    CHECK(n_partial_sums(0, 10) == 1);
    CHECK(n_partial_sums(1, 10) == 1);
    CHECK(n_partial_sums(1 << 20, 10) == 64);
    CHECK(n_partial_sums(1 << 20, 1 << 21) == 2);
    std::puts("parallel: ok");
}

}  // namespace lmmfast::testing::test_parallel
