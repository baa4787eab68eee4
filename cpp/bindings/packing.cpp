// Rows -> compressed clusters, or rows in the working basis.
#include <algorithm>
#include <optional>

#include "arrays.hpp"
#include "bind.hpp"
#include "lmmfast/compress/compress.hpp"
#include "lmmfast/rows/working_rows.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

std::vector<Column> columns(const py::list& arrays, const MatrixArray& shift, const MatrixArray& scale_inv,
                            const std::optional<MatrixArray>& expected, Index n_rows) {
    require(shift.size() == static_cast<py::ssize_t>(arrays.size()) && scale_inv.size() == shift.size(),
            "one shift and one scale per column");
    require(!expected || expected->size() == shift.size(), "one expected value per column");
    std::vector<Column> out;
    for (std::size_t k = 0; k < arrays.size(); ++k) {
        out.push_back(column(existing_array(arrays[k]), n_rows, shift.data()[k], scale_inv.data()[k]));
        if (expected) out.back().expected = expected->data()[k];
    }
    return out;
}

ColumnMap column_map(const py::object& T, int size) {
    if (T.is_none()) return {};
    const py::array array = existing_array(T);
    require(py::isinstance<MatrixArray>(array) && array.ndim() == 2 && array.shape(0) == size &&
                array.shape(1) == size,
            "a map of columns must be a square float64 array, one row per column");
    return {static_cast<const double*>(array.data()), size};
}

// The rows of a model as Python holds them. Stays where it is: `rows` points into it.
struct GivenRows {
    Rows rows;
    Column weights, offset;
    IndexArray order;
    Index n_rows = 0;

    GivenRows(const py::list& X, const py::list& Z, const py::array& y, const py::object& given_weights,
              const py::object& given_offset, const MatrixArray& X_shift, const MatrixArray& X_scale_inv,
              const MatrixArray& Z_shift, const MatrixArray& Z_scale_inv, const py::object& X_map,
              const py::object& Z_map, double y_shift, double y_scale_inv, const MatrixArray& beta,
              const std::optional<MatrixArray>& X_expected = std::nullopt,
              const std::optional<MatrixArray>& Z_expected = std::nullopt)
        : n_rows(y.ndim() == 1 ? y.shape(0) : -1) {
        rows.X = columns(X, X_shift, X_scale_inv, X_expected, n_rows);
        rows.Z = columns(Z, Z_shift, Z_scale_inv, Z_expected, n_rows);
        rows.X_map = column_map(X_map, p1() - 1);
        rows.Z_map = column_map(Z_map, q());
        rows.y = column(y, n_rows, y_shift, y_scale_inv);
        require(beta.size() == p1() - 1, "beta must have p entries");
        rows.beta = beta.data();
        if (!given_weights.is_none()) {
            weights = column(existing_array(given_weights), n_rows);
            rows.weights = &weights;
        }
        if (!given_offset.is_none()) {
            offset = column(existing_array(given_offset), n_rows);
            rows.offset = &offset;
        }
    }
    GivenRows(const GivenRows&) = delete;
    GivenRows& operator=(const GivenRows&) = delete;

    int p1() const { return static_cast<int>(rows.X.size()) + 1; }
    int q() const { return static_cast<int>(rows.Z.size()); }

    void set_order(const py::object& given) {
        if (given.is_none()) return;
        order = py::cast<IndexArray>(given);
        require(order.ndim() == 1, "order must be one-dimensional");
        const auto inside = [this](std::int64_t row) { return row >= 0 && row < n_rows; };
        require(std::all_of(order.data(), order.data() + order.size(), inside), "order exceeds the rows");
        rows.order = order.data();
    }
};

py::tuple compress_rows(const py::list& X, const py::list& Z, const py::array& y, const py::object& weights,
                        const py::object& offset, const IndexArray& ptr, const py::object& order,
                        const MatrixArray& X_shift, const MatrixArray& X_scale_inv,
                        const MatrixArray& Z_shift, const MatrixArray& Z_scale_inv, const py::object& X_map,
                        const py::object& Z_map, double y_shift, double y_scale_inv, const MatrixArray& beta,
                        MatrixArray out, int n_threads, int n_single,
                        const std::optional<MatrixArray>& X_expected,
                        const std::optional<MatrixArray>& Z_expected) {
    GivenRows given(X, Z, y, weights, offset, X_shift, X_scale_inv, Z_shift, Z_scale_inv, X_map, Z_map,
                    y_shift, y_scale_inv, beta, X_expected, Z_expected);
    Rows& rows = given.rows;
    const Index n_rows = given.n_rows;
    const int p1 = given.p1();
    const ClusterBlocks target = blocks(out, given.q(), p1);
    require(n_single >= 0 && n_single <= p1, "n_single columns of [X y]");
    rows.n_single = n_single;
    require(ptr.ndim() == 1 && ptr.size() >= 1, "ptr must have n_clusters + 1 entries");
    rows.n_clusters = ptr.size() - 1;
    rows.ptr = ptr.data();
    require(target.n_blocks == (rows.n_clusters + lanes - 1) / lanes, "one block per eight clusters");
    require(ptr.data()[0] >= 0 && ptr.data()[rows.n_clusters] <= n_rows, "ptr exceeds the rows");
    require(std::is_sorted(rows.ptr, rows.ptr + rows.n_clusters + 1), "ptr must not decrease");
    given.set_order(order);
    require(!rows.order || given.order.size() == n_rows, "order must have n_rows entries");
    CompressedSums sums;
    double* data = out.mutable_data();
    without_gil(
        [&](Interrupt& interrupt) { sums = compress(target.layout, rows, data, n_threads, interrupt); });
    MatrixArray gram({p1, p1}), perp({p1, p1});
    std::copy(sums.gram.begin(), sums.gram.end(), gram.mutable_data());
    std::copy(sums.perp.begin(), sums.perp.end(), perp.mutable_data());
    return py::make_tuple(gram, perp, sums.log_weights, sums.min_weight, sums.rank_Z, sums.as_expected,
                          sums.z_in_x);
}

// [X r] (k, p + 1) and Z (k, q) of the rows `order`, or of all of them, in the working basis.
py::tuple rows_in_basis(const py::list& X, const py::list& Z, const py::array& y, const py::object& offset,
                        const py::object& order, const MatrixArray& X_shift, const MatrixArray& X_scale_inv,
                        const MatrixArray& Z_shift, const MatrixArray& Z_scale_inv, const py::object& X_map,
                        const py::object& Z_map, double y_shift, double y_scale_inv, const MatrixArray& beta,
                        int n_threads) {
    GivenRows given(X, Z, y, py::none(), offset, X_shift, X_scale_inv, Z_shift, Z_scale_inv, X_map, Z_map,
                    y_shift, y_scale_inv, beta);
    given.set_order(order);
    const Index n = given.rows.order ? given.order.size() : given.n_rows;
    MatrixArray A({n, Index{given.p1()}}), Z_out({n, Index{given.q()}});
    double *to_A = A.mutable_data(), *to_Z = Z_out.mutable_data();
    without_gil([&](Interrupt& interrupt) { working_rows(given.rows, n, to_A, to_Z, n_threads, interrupt); });
    return py::make_tuple(A, Z_out);
}

}  // namespace

void bind_packing(py::module_& m) {
    m.def("compress_rows", &compress_rows, py::arg("X"), py::arg("Z"), py::arg("y"), py::arg("weights"),
          py::arg("offset"), py::arg("ptr"), py::arg("order"), py::arg("X_shift"), py::arg("X_scale_inv"),
          py::arg("Z_shift"), py::arg("Z_scale_inv"), py::arg("X_map"), py::arg("Z_map"), py::arg("y_shift"),
          py::arg("y_scale_inv"), py::arg("beta"), py::arg("out").noconvert(), py::arg("n_threads"),
          py::arg("n_single") = 0, py::arg("X_expected") = py::none(), py::arg("Z_expected") = py::none());
    m.def("rows_in_basis", &rows_in_basis, py::arg("X"), py::arg("Z"), py::arg("y"), py::arg("offset"),
          py::arg("order"), py::arg("X_shift"), py::arg("X_scale_inv"), py::arg("Z_shift"),
          py::arg("Z_scale_inv"), py::arg("X_map"), py::arg("Z_map"), py::arg("y_shift"),
          py::arg("y_scale_inv"), py::arg("beta"), py::arg("n_threads"));
}

}  // namespace lmmfast::bindings
