// Rows in the order of their clusters.
#include "lmmfast/grouping.hpp"

#include "arrays.hpp"
#include "bind.hpp"

namespace lmmfast::bindings {

namespace {

py::tuple group_rows(const IndexArray& codes, Index n_codes) {
    require(n_codes >= 0, "n_codes must not be negative");
    require(codes.ndim() == 1, "codes must be one-dimensional");
    IndexArray ptr(n_codes + 1), order(codes.size());
    const std::span<const std::int64_t> code_view(codes.data(), static_cast<std::size_t>(codes.size()));
    const std::span<std::int64_t> ptr_view(ptr.mutable_data(), static_cast<std::size_t>(ptr.size()));
    const std::span<std::int64_t> order_view(order.mutable_data(), static_cast<std::size_t>(order.size()));
    bool inside = true;
    {
        const py::gil_scoped_release release;
        inside = counting_sort(code_view, n_codes, ptr_view, order_view);
    }
    require(inside, "a code lies outside 0 … n_codes - 1");
    return py::make_tuple(ptr, order);
}

}  // namespace

void bind_grouping(py::module_& m) {
    m.def("group_rows", &group_rows, py::arg("codes"), py::arg("n_codes"));
}

}  // namespace lmmfast::bindings
