// Rows of whole clusters as the user holds them, and the working basis that they are read in.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "lmmfast/base/lanes.hpp"

namespace lmmfast {

enum class Type { f64, f32, i8, i16, i32, i64, u8, u16, u32, u64 };  // bool is u8

template <class T>
constexpr Type type_of() {
    if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 8 ? Type::f64 : Type::f32;
    constexpr int log2_size = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return static_cast<Type>(static_cast<int>(std::is_signed_v<T> ? Type::i8 : Type::u8) + log2_size);
}

// A column as the user holds it, and how it enters the model: (value - shift) * scale_inv.
struct Column {
    const void* data = nullptr;
    Index stride = 0;  // in bytes; 0 for a constant
    double shift = 0.0;
    double scale_inv = 1.0;
    Type type = Type::f64;
    // The value that every row is taken to have; NaN: none.
    double expected = std::numeric_limits<double>::quiet_NaN();

    Column() = default;
    // stride in elements
    template <class T>
    Column(const T* values, Index stride_, double shift_ = 0.0, double scale_inv_ = 1.0)
        : data(values),
          stride(stride_ * static_cast<Index>(sizeof(T))),
          shift(shift_),
          scale_inv(scale_inv_),
          type(type_of<T>()) {}

    // call(T{}) with the type of the values
    template <class Call>
    void with_type(const Call& call) const {
        switch (type) {
            case Type::f64:
                return call(double{});
            case Type::f32:
                return call(float{});
            case Type::i8:
                return call(std::int8_t{});
            case Type::i16:
                return call(std::int16_t{});
            case Type::i32:
                return call(std::int32_t{});
            case Type::i64:
                return call(std::int64_t{});
            case Type::u8:
                return call(std::uint8_t{});
            case Type::u16:
                return call(std::uint16_t{});
            case Type::u32:
                return call(std::uint32_t{});
            case Type::u64:
                return call(std::uint64_t{});
        }
    }

    // to[i] = the value at row order[first + i], or first + i, of the column, i = 0 … n - 1.
    void read(Index first, const std::int64_t* order, int n, double* to) const {
        if (stride == 0) {
            double value = 0.0;
            with_type([&](auto t) { value = (get<decltype(t)>(0) - shift) * scale_inv; });
            for (int i = 0; i < n; ++i) to[i] = value;
            return;
        }
        with_type([&](auto t) {
            using T = decltype(t);
            const char* base = static_cast<const char*>(data);
            if (order) {
                const std::int64_t* row = order + first;
                read_fours<T>(n, to, [&](int i) { return base + row[i] * stride; });
            } else if (stride == static_cast<Index>(sizeof(T))) {
                const T* from = static_cast<const T*>(data) + first;
                for (int i = 0; i < n; ++i) to[i] = (static_cast<double>(from[i]) - shift) * scale_inv;
            } else {
                const char* from = base + first * stride;
                read_fours<T>(n, to, [&](int) {
                    const char* at = from;
                    from += stride;
                    return at;
                });
            }
        });
    }

  private:
    template <class T>
    double get(Index row) const {
        return static_cast<double>(
            *reinterpret_cast<const T*>(static_cast<const char*>(data) + row * stride));
    }
    // Four scattered values at a time, so that the arithmetic is done on all of them in a register.
    template <class T, class Place>
    void read_fours(int n, double* to, const Place& place) const {
        const auto value = [&](int i) { return static_cast<double>(*reinterpret_cast<const T*>(place(i))); };
        int i = 0;
        for (; i + 4 <= n; i += 4) {
            const double v0 = value(i), v1 = value(i + 1), v2 = value(i + 2), v3 = value(i + 3);
            Eigen::Map<Eigen::Array4d>(to + i) = (Eigen::Array4d(v0, v1, v2, v3) - shift) * scale_inv;
        }
        for (; i < n; ++i) to[i] = (value(i) - shift) * scale_inv;
    }
};

// A change of basis of neighbouring columns: column j of the model is sum_{k<=j} T(k, j) x_k, with T
// (size, size) row-major, upper triangular. Null: none.
struct ColumnMap {
    const double* T = nullptr;
    int size = 0;
};

// Rows of whole clusters. Cluster i owns rows order[ptr[i]] … order[ptr[i + 1] - 1], or the
// contiguous rows themselves where order is null. The response is taken about X beta (working
// residual), rows are multiplied by the square root of their weight.
struct Rows {
    std::vector<Column> X;  // p columns
    std::vector<Column> Z;  // q columns
    ColumnMap X_map, Z_map;
    Column y;
    const Column* offset = nullptr;  // in the unit of y before its shift and scale
    const Column* weights = nullptr;
    const double* beta = nullptr;         // (p,)
    const std::int64_t* ptr = nullptr;    // (n_clusters + 1,)
    const std::int64_t* order = nullptr;  // (n_rows,) or null
    Index n_clusters = 0;
    // The last columns of [X y], responses side by side: products among them are not wanted.
    int n_single = 0;
};

}  // namespace lmmfast
