// Storage for packed clusters: doubles that begin at a multiple of 64 bytes.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace lmmfast {

class AlignedDoubles {
  public:
    static constexpr std::align_val_t alignment{64};

    AlignedDoubles() = default;
    explicit AlignedDoubles(std::size_t size)
        : data_(static_cast<double*>(::operator new(size * sizeof(double), alignment))), size_(size) {}

    double* data() { return data_.get(); }
    const double* data() const { return data_.get(); }
    std::size_t size() const { return size_; }
    double* release() { return data_.release(); }  // to be freed by `Free`

    struct Free {
        void operator()(double* p) const { ::operator delete(p, alignment); }
    };

  private:
    std::unique_ptr<double, Free> data_;
    std::size_t size_ = 0;
};

}  // namespace lmmfast
