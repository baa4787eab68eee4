// Tasks over std::thread: started for the call, gone with it; a stop request is honoured quickly.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "lmmfast/base/lanes.hpp"

namespace lmmfast {

struct Interrupted : std::runtime_error {
    Interrupted() : std::runtime_error("interrupted") {}
};

// A stop request. `ask` is called on the calling thread only (an interpreter handles signals there),
// at most once a period; every thread sees the answer.
class Interrupt {
  public:
    static constexpr std::chrono::milliseconds period{50};

    explicit Interrupt(std::function<bool()> ask = {}) : ask_(std::move(ask)) {}

    void check() {
        if (stop_.load(std::memory_order_relaxed)) throw Interrupted();
        if (!ask_ || std::this_thread::get_id() != owner_) return;
        const auto now = Clock::now();
        if (now - last_ < period) return;
        last_ = now;
        if (ask_()) {
            request();
            throw Interrupted();
        }
    }
    void request() { stop_.store(true, std::memory_order_relaxed); }
    bool requested() const { return stop_.load(std::memory_order_relaxed); }

  private:
    using Clock = std::chrono::steady_clock;
    std::function<bool()> ask_;
    std::thread::id owner_ = std::this_thread::get_id();
    Clock::time_point last_ = Clock::now();
    std::atomic<bool> stop_{false};
};

// Whether this thread may throw. What the first exception of a thread needs of its own is allocated by the
// runtime, which ends the process where it gets nothing: it is asked for while there is memory.
inline bool ready_to_throw() {
    constexpr std::size_t more_than_needed = 1 << 16;
    void* const probe = std::malloc(more_than_needed);
    if (!probe) return false;
    *static_cast<volatile char*>(probe) = 0;  // or compilers leave out allocation and test
    std::free(probe);
    return std::uncaught_exceptions() >= 0;
}

// work(task) for task = 0 … n_tasks-1 on up to n_threads threads, the calling one among them.
// The first exception stops the rest and is thrown again here. While the calling thread waits for the
// others it goes on asking whether to stop.
template <class Work>
void parallel_for(Index n_tasks, int n_threads, Interrupt& interrupt, const Work& work) {
    std::atomic<Index> next{0};
    std::mutex mutex;
    std::exception_ptr error;
    const auto guarded = [&](const auto& act) {
        try {
            act();
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (!error) error = std::current_exception();
            interrupt.request();
        }
    };
    const auto run = [&] {
        guarded([&] {
            for (Index task; (task = next.fetch_add(1)) < n_tasks;) {
                interrupt.check();
                work(task);
            }
        });
    };
    std::vector<std::thread> helpers;
    std::condition_variable ended;
    Index n_ended = 0;
    const auto n_helpers = std::min<Index>(n_threads, n_tasks) - 1;
    for (Index k = 0; k < n_helpers; ++k) {
        try {
            helpers.emplace_back([&] {
                if (ready_to_throw()) run();
                const std::lock_guard lock(mutex);
                ++n_ended;
                ended.notify_one();
            });
        } catch (const std::system_error&) {
            break;  // no more threads to be had: the ones there are do the work
        }
    }
    run();
    for (bool all_ended = helpers.empty(); !all_ended;) {
        {
            std::unique_lock lock(mutex);
            all_ended = ended.wait_for(lock, Interrupt::period,
                                       [&] { return n_ended == static_cast<Index>(helpers.size()); });
        }
        if (!all_ended && !interrupt.requested()) guarded([&] { interrupt.check(); });
    }
    for (auto& helper : helpers) helper.join();
    if (error) std::rethrow_exception(error);
}

// How many partial sums a reduction keeps. It depends on the data alone, never on the number of
// threads, so that the order of addition and the last bit of the result do not either.
inline Index n_partial_sums(Index n_blocks, Index doubles_each) {
    constexpr Index min_blocks = 32, max_sums = 64, max_doubles = Index{1} << 22;
    const Index by_memory = std::max<Index>(2, max_doubles / std::max<Index>(1, doubles_each));
    return std::clamp<Index>(n_blocks / min_blocks, 1, std::min(max_sums, by_memory));
}

}  // namespace lmmfast
