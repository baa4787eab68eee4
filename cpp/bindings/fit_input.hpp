// numpy arrays and options of a fit as the core takes them, checked.
#pragma once

#include <algorithm>
#include <optional>

#include "arrays.hpp"
#include "lmmfast/fit/fit_rows.hpp"
#include "optimum.hpp"

namespace lmmfast::bindings {

namespace detail {

inline std::vector<Column> columns(const py::list& arrays, Index n_rows) {
    std::vector<Column> out;
    for (const auto& array : arrays) out.push_back(column(existing_array(array), n_rows));
    return out;
}

inline void require_rows(const DataView& data, Index n_rows, const std::optional<IndexArray>& order) {
    require(data.n_clusters >= 1 && data.ptr[0] == 0 && data.ptr[data.n_clusters] == n_rows,
            "ptr must run from 0 to the number of rows");
    require(std::is_sorted(data.ptr, data.ptr + data.n_clusters + 1), "ptr must not decrease");
    if (!order) return;
    require(order->ndim() == 1 && order->size() == n_rows, "order must have n_rows entries");
    const auto inside = [n_rows](std::int64_t row) { return row >= 0 && row < n_rows; };
    require(std::all_of(order->data(), order->data() + n_rows, inside), "order exceeds the rows");
}

}  // namespace detail

// Views of the arrays, which have to outlive it.
struct BoundInput {
    FitInput input;
    Column weights, offset;

    BoundInput(const BoundInput&) = delete;
    BoundInput& operator=(const BoundInput&) = delete;
    BoundInput(const py::list& X, const py::list& Z, const py::array& y,
               const std::optional<py::array>& weights_, const std::optional<py::array>& offset_,
               const IndexArray& ptr, const std::optional<IndexArray>& order, const TermList& terms,
               std::optional<int> unit, bool reml, int max_evaluations) {
        const Index n_rows = y.ndim() == 1 ? y.shape(0) : -1;
        input.data.X = detail::columns(X, n_rows);
        input.data.Z = detail::columns(Z, n_rows);
        input.data.y = column(y, n_rows);
        if (weights_) {
            weights = column(*weights_, n_rows);
            input.data.weights = &weights;
        }
        if (offset_) {
            offset = column(*offset_, n_rows);
            input.data.offset = &offset;
        }
        require(ptr.ndim() == 1 && ptr.size() >= 1, "ptr must have n_clusters + 1 entries");
        input.data.ptr = ptr.data();
        input.data.n_clusters = ptr.size() - 1;
        if (order) input.data.order = order->data();
        detail::require_rows(input.data, n_rows, order);
        input.terms = random_terms(terms);
        require(RandomCovariance(input.terms).q() == static_cast<int>(Z.size()),
                "the terms must have q columns");
        require(!X.empty() && static_cast<int>(X.size()) < max_p1, "too few or too many columns of X");
        input.known_unit = unit.value_or(-1);
        require(input.known_unit >= -1 && input.known_unit < static_cast<int>(X.size()), "no such column");
        input.reml = reml;
        require(max_evaluations >= 1, "max_evaluations must be positive");
        input.search.max_evaluations = max_evaluations;
    }
};

}  // namespace lmmfast::bindings
