// Columns that lie side by side in the rows of a matrix, read together: one load a row for several of
// them, and a transposition in registers.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "lmmfast/base/packs.hpp"
#include "lmmfast/rows/rows.hpp"

namespace lmmfast {

// Columns are numbered by their places in the list they were found in.
struct SideBySide {
    static constexpr int max_width = 4;
    std::array<int, max_width> columns;
    int width = 0;  // 1: a column by itself
};

namespace detail {

inline const double* next_to(const Column& column) {
    return static_cast<const double*>(column.data) + 1;
}

#ifdef EIGEN_VECTORIZE_AVX
inline constexpr int widest = 4;
#else
inline constexpr int widest = 2;
#endif

template <int Width>
using WidthPacket = typename Eigen::internal::find_best_packet<double, Width>::type;

}  // namespace detail

// Which of the columns to read together: in fours, then in twos, then one by one.
inline std::vector<SideBySide> find_side_by_side(const std::vector<Column>& columns) {
    const int n = static_cast<int>(columns.size());
    std::vector<bool> taken(columns.size(), false);
    const auto follower = [&](int c) {
        for (int k = 0; k < n; ++k)
            if (!taken[k] && columns[k].data == detail::next_to(columns[c]) && columns[k].type == Type::f64 &&
                columns[k].stride == columns[c].stride)
                return k;
        return -1;
    };
    std::vector<SideBySide> out;
    for (int width = detail::widest; width > 0; width /= 2)
        for (int c = 0; c < n; ++c) {
            if (taken[c]) continue;
            SideBySide found;
            found.columns[found.width++] = c;
            const bool scattered = columns[c].type == Type::f64 && columns[c].stride != 0 &&
                                   columns[c].stride != static_cast<Index>(sizeof(double));
            while (scattered && found.width < width) {
                const int next = follower(found.columns[found.width - 1]);
                if (next < 0) break;
                found.columns[found.width++] = next;
            }
            if (found.width < width) continue;
            for (int k = 0; k < width; ++k) taken[found.columns[k]] = true;
            out.push_back(found);
        }
    return out;
}

// As Column::read for Width columns at once: to(k) is the place for column k. Writes up to Width - 1
// numbers more than n.
template <int Width, class Place>
void read_side_by_side(const std::vector<Column>& columns, const SideBySide& which, Index first,
                       const std::int64_t* order, int n, const Place& to) {
    using Packet = detail::WidthPacket<Width>;
    static_assert(Eigen::internal::unpacket_traits<Packet>::size == Width);
    const Column& leftmost = columns[which.columns[0]];
    const char* base = static_cast<const char*>(leftmost.data);
    const Index stride = leftmost.stride;
    Packet shift[Width], scale[Width];
    double* out[Width];
    for (int k = 0; k < Width; ++k) {
        shift[k] = Eigen::internal::pset1<Packet>(columns[which.columns[k]].shift);
        scale[k] = Eigen::internal::pset1<Packet>(columns[which.columns[k]].scale_inv);
        out[k] = to(which.columns[k]);
    }
    const auto step = [&](int i, const auto& row) {
        using namespace Eigen::internal;
        PacketBlock<Packet, Width> square;
        unroll<Width>([&](auto k) {
            square.packet[k] = ploadu<Packet>(reinterpret_cast<const double*>(row(k.value)));
        });
        ptranspose(square);
        unroll<Width>([&](auto k) { pstoreu(out[k] + i, pmul(psub(square.packet[k], shift[k]), scale[k])); });
    };
    const int whole = n - n % Width;
    if (order) {
        for (int i = 0; i < whole; i += Width)
            step(i, [&](int k) { return base + order[first + i + k] * stride; });
    } else {
        const char* from = base + first * stride;
        for (int i = 0; i < whole; i += Width, from += Width * stride)
            step(i, [&](int k) { return from + k * stride; });
    }
    if (whole < n)  // the last row stands in for those beyond it
        step(whole, [&](int k) {
            const Index at = first + std::min(whole + k, n - 1);
            return base + (order ? order[at] : at) * stride;
        });
}

// Asks for rows that will be read soon. Inline always: to a compiler a function that only prefetches does
// nothing, and calls of it may go.
EIGEN_ALWAYS_INLINE void prefetch_rows(const Column& column, Index first, const std::int64_t* order,
                                       Index n) {
    constexpr Index line = 64;
    const auto prefetch = [&](Index byte) {
        Eigen::internal::prefetch(static_cast<const char*>(column.data) + byte);
    };
    if (order)
        for (Index i = first; i < first + n; ++i) prefetch(order[i] * column.stride);
    else if (column.stride > 0 && column.stride < line)
        for (Index byte = first * column.stride; byte < (first + n) * column.stride; byte += line)
            prefetch(byte);
    else
        for (Index i = first; i < first + n; ++i) prefetch(i * column.stride);
}

}  // namespace lmmfast
