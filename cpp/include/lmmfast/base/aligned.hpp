// Storage for packed clusters: doubles that begin at a multiple of 64 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace lmmfast {

class AlignedDoubles {
  public:
    static constexpr std::align_val_t alignment{64};

    AlignedDoubles() = default;
    explicit AlignedDoubles(std::size_t size)
        : data_(static_cast<double*>(::operator new(size * sizeof(double), alignment))), size_(size) {
        prefer_huge_pages();
    }

    double* data() { return data_.get(); }
    const double* data() const { return data_.get(); }
    std::size_t size() const { return size_; }
    double* release() { return data_.release(); }  // to be freed by `Free`

    struct Free {
        void operator()(double* p) const { ::operator delete(p, alignment); }
    };

  private:
    // Memory handed out 4 kB at a time takes longer to get than to fill.
    void prefer_huge_pages() const {
#ifdef MADV_HUGEPAGE
        constexpr std::uintptr_t page = 4096, worthwhile = std::uintptr_t{1} << 22;
        const auto begin = (reinterpret_cast<std::uintptr_t>(data_.get()) + page - 1) / page * page;
        const auto end = reinterpret_cast<std::uintptr_t>(data_.get() + size_) / page * page;
        if (size_ * sizeof(double) >= worthwhile)
            madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
    }

    std::unique_ptr<double, Free> data_;
    std::size_t size_ = 0;
};

}  // namespace lmmfast
