// Where clusters begin, and rows in the order of their clusters.
#include "lmmfast/rows/grouping.hpp"

#include <optional>

#include "arrays.hpp"
#include "bind.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

template <class Key>
py::tuple group_keys(const py::array_t<Key, py::array::c_style>& keys, Key low, Index n_codes,
                     int n_threads) {
    require(n_codes >= 0, "n_codes must not be negative");
    require(keys.ndim() == 1, "keys must be one-dimensional");
    IndexArray ptr(n_codes + 1), order(keys.size());
    const std::span<const Key> key_view(keys.data(), static_cast<std::size_t>(keys.size()));
    const std::span<std::int64_t> ptr_view(ptr.mutable_data(), static_cast<std::size_t>(ptr.size()));
    const std::span<std::int64_t> order_view(order.mutable_data(), static_cast<std::size_t>(order.size()));
    bool inside = true;
    without_gil([&](Interrupt& interrupt) {
        inside = counting_sort(key_view, low, n_codes, ptr_view, order_view, n_threads, interrupt);
    });
    require(inside, "a key lies outside low … low + n_codes - 1");
    return py::make_tuple(ptr, order);
}

// starts (n_runs + 1,), the key of each run (n_runs,), and whether keys ascend.
template <class Key>
py::tuple find_runs(const py::array_t<Key, py::array::c_style>& keys, int n_threads) {
    require(keys.ndim() == 1, "keys must be one-dimensional");
    const std::span<const Key> view(keys.data(), static_cast<std::size_t>(keys.size()));
    std::optional<Runs<Key>> runs;
    without_gil([&](Interrupt& interrupt) { runs.emplace(view, n_threads, interrupt); });
    IndexArray starts(runs->size() + 1);
    py::array_t<Key> run_keys(runs->size());
    std::int64_t* to = starts.mutable_data();
    Key* to_keys = run_keys.mutable_data();
    bool ascending = true;
    try {
        without_gil([&](Interrupt& interrupt) { ascending = runs->write(to, to_keys, interrupt); });
    } catch (const KeysChanged& error) {
        throw py::value_error(error.what());
    }
    return py::make_tuple(starts, run_keys, ascending);
}

}  // namespace

void bind_grouping(py::module_& m) {
    const auto define = [&m]<class Key>(Key) {
        m.def("group_rows", &group_keys<Key>, py::arg("keys").noconvert(), py::arg("low"), py::arg("n_codes"),
              py::arg("n_threads"));
        m.def("find_runs", &find_runs<Key>, py::arg("keys").noconvert(), py::arg("n_threads"));
    };
    define(std::int64_t{});
    define(std::int32_t{});
    define(std::int16_t{});
    define(std::int8_t{});
    define(std::uint64_t{});
    define(std::uint32_t{});
    define(std::uint16_t{});
    define(std::uint8_t{});
}

}  // namespace lmmfast::bindings
