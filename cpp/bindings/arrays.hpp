// numpy arrays <-> views of the core. No arithmetic.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "lmmfast/rows/clusters.hpp"
#include "lmmfast/rows/rows.hpp"

namespace lmmfast::bindings {

namespace py = pybind11;
using IndexArray = py::array_t<std::int64_t, py::array::c_style>;
using MatrixArray = py::array_t<double, py::array::c_style>;

// Far beyond what is practical; sizes computed from it fit into an int.
inline constexpr int max_p1 = 10000;

// No string is made unless it is thrown: checks may stand in loops.
inline void require(bool condition, const char* message) {
    if (!condition) throw py::value_error(message);
}
inline void require(bool condition, const std::string& message) {
    if (!condition) throw py::value_error(message);
}

// The array that Python holds, never a converted copy that would be gone before it is used.
inline py::array existing_array(const py::handle& object) {
    require(py::isinstance<py::array>(object), "columns must be numpy arrays");
    return py::reinterpret_borrow<py::array>(object);
}

// The kernel's name of an array's type.
inline Type column_type(const py::array& a) {
    const char kind = a.dtype().kind();
    const auto size = a.dtype().itemsize();
    require(a.dtype().byteorder() != '>', "a column must be in the machine's byte order");
    if (kind == 'f' && (size == 4 || size == 8)) return size == 8 ? Type::f64 : Type::f32;
    if (kind == 'b') return Type::u8;
    require(kind == 'i' || kind == 'u', "a column must be float64, float32, integer or bool");
    const bool is_signed = kind == 'i';
    switch (size) {
        case 1:
            return is_signed ? Type::i8 : Type::u8;
        case 2:
            return is_signed ? Type::i16 : Type::u16;
        case 4:
            return is_signed ? Type::i32 : Type::u32;
        default:
            return is_signed ? Type::i64 : Type::u64;
    }
}

// A one-dimensional array of any stride, 0 included; never a copy.
inline Column column(const py::array& a, Index n_rows, double shift = 0.0, double scale_inv = 1.0) {
    require(a.ndim() == 1 && a.shape(0) == n_rows, "a column must be one-dimensional, of n_rows entries");
    const auto size = static_cast<std::uintptr_t>(a.dtype().itemsize());
    require(a.strides(0) % static_cast<py::ssize_t>(size) == 0 &&
                reinterpret_cast<std::uintptr_t>(a.data()) % size == 0,
            "a column must be aligned");
    Column out;
    out.data = a.data();
    out.stride = a.strides(0);
    out.shift = shift;
    out.scale_inv = scale_inv;
    out.type = column_type(a);
    return out;
}

// `z_in_x` as in ClusterBlocks, empty for null, must stay as long as what is returned.
inline ClusterBlocks blocks(const MatrixArray& data, int q, int p1,
                            const std::optional<MatrixArray>& counts = std::nullopt,
                            const std::vector<int>& z_in_x = {}) {
    ClusterBlocks out;
    out.layout = {q, p1};
    require(q >= 1 && q <= max_q, "q must lie in 1 … " + std::to_string(max_q));
    require(p1 >= 1 && p1 <= max_p1, "p1 must lie in 1 … " + std::to_string(max_p1));
    require(data.ndim() == 3 && data.shape(1) == out.layout.n_fields() && data.shape(2) == lanes,
            "blocks must have the shape (n_blocks, n_fields, 8)");
    require(reinterpret_cast<std::uintptr_t>(data.data()) % 64 == 0, "blocks must be 64-byte aligned");
    out.n_blocks = data.shape(0);
    out.data = data.data();
    if (counts) {
        require(counts->ndim() == 2 && counts->shape(0) == data.shape(0) && counts->shape(1) == lanes,
                "counts must have the shape (n_blocks, 8)");
        require(reinterpret_cast<std::uintptr_t>(counts->data()) % 64 == 0, "counts must be 64-byte aligned");
        out.counts = counts->data();
    }
    if (!z_in_x.empty()) {
        require(static_cast<int>(z_in_x.size()) == q, "z_in_x must be empty or name q columns");
        for (std::size_t k = 0; k < z_in_x.size(); ++k)
            require(z_in_x[k] >= 0 && z_in_x[k] < p1 - 1 &&
                        std::count(z_in_x.begin(), z_in_x.end(), z_in_x[k]) == 1,
                    "z_in_x must be different columns of X");
        out.z_in_x = z_in_x.data();
    }
    return out;
}

}  // namespace lmmfast::bindings
