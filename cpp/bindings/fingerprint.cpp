// Whether arrays are still what they were.
#include "lmmfast/rows/fingerprint.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bind.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

void bind_fingerprint(py::module_& m) {
    m.def(
        "fingerprint",
        [](const std::vector<py::array>& arrays, int n_threads) {
            std::vector<Items> items;
            for (const py::array& array : arrays) {
                const auto size = static_cast<int>(array.itemsize());
                if (array.ndim() != 1 || (size != 1 && size != 2 && size != 4 && size != 8))
                    throw py::value_error("arrays must have one dimension and items of 1, 2, 4 or 8 bytes");
                const bool same = array.strides(0) == 0;  // one item, repeated
                items.push_back({static_cast<const char*>(array.data()),
                                 same ? std::min<Index>(array.size(), 1) : array.size(), array.strides(0),
                                 size});
            }
            std::vector<std::uint64_t> found;
            without_gil([&](Interrupt& interrupt) { found = fingerprint(items, n_threads, interrupt); });
            return found;
        },
        py::arg("arrays"), py::arg("n_threads"));
}

}  // namespace lmmfast::bindings
