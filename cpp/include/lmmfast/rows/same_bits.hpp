// Pairs of columns of float64 that should be the same, compared bit by bit.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "lmmfast/rows/rows.hpp"

namespace lmmfast {

class SameBits {
  public:
    void clear() { pairs_.clear(); }
    // Pairs that lie beside the last one are compared with it, two columns at a time.
    void add(const Column& a, const Column& b) {
        const Pair pair{static_cast<const char*>(a.data), static_cast<const char*>(b.data), a.stride,
                        b.stride, 1};
        if (!pairs_.empty() && pairs_.back().is_followed_by(pair))
            pairs_.back().width = 2;
        else
            pairs_.push_back(pair);
    }
    // Whether rows first … last - 1 of all pairs are the same
    bool same(Index first, Index last) const {
        for (const Pair& pair : pairs_)
            if (!(pair.width == 2 ? pair.same<2>(first, last) : pair.same<1>(first, last))) return false;
        return true;
    }

  private:
    static constexpr Index word = sizeof(double);

    struct Pair {
        const char *a, *b;
        Index stride_a, stride_b;
        int width;

        bool is_followed_by(const Pair& next) const {
            return width == 1 && next.a == a + word && next.b == b + word && next.stride_a == stride_a &&
                   next.stride_b == stride_b;
        }
        template <int Width>
        bool same(Index first, Index last) const {
            if (Width == 1 && stride_a == word && stride_b == word)
                return std::memcmp(a + first * word, b + first * word,
                                   static_cast<std::size_t>((last - first) * word)) == 0;
            std::uint64_t different[Width] = {};
            for (Index i = first; i < last; ++i) {
                std::uint64_t x[Width], y[Width];
                std::memcpy(x, a + i * stride_a, sizeof x);
                std::memcpy(y, b + i * stride_b, sizeof y);
                for (int k = 0; k < Width; ++k) different[k] |= x[k] ^ y[k];
            }
            for (const std::uint64_t bits : different)
                if (bits) return false;
            return true;
        }
    };

    std::vector<Pair> pairs_;
};

}  // namespace lmmfast
