// Whole fits of small data sets, all of it without the GIL.
#include "bind.hpp"
#include "evaluate.hpp"
#include "fit_input.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

using namespace py::literals;

py::object array_or_none(const Eigen::VectorXd& x) {
    return x.size() ? py::object(array(x)) : py::none();
}
py::object array_or_none(const Eigen::MatrixXd& A) {
    return A.size() ? py::object(array(RowMatrix(A))) : py::none();
}
py::array_t<py::ssize_t> indices(const std::vector<int>& values) {
    py::array_t<py::ssize_t> out(static_cast<py::ssize_t>(values.size()));
    std::copy(values.begin(), values.end(), out.mutable_data());
    return out;
}
MatrixArray square(const std::vector<double>& values, int size) {
    return MatrixArray({size, size}, values.data());
}

// The fields of Python's Basis.
py::dict basis_dict(const Basis& b) {
    return py::dict("x_shift"_a = array(b.x_shift), "x_scale"_a = array(b.x_scale),
                    "unit"_a = array_or_none(b.unit), "z_shift"_a = array(b.z_shift),
                    "z_scale"_a = array(b.z_scale), "z_units"_a = indices(b.z_units),
                    "z_unit_values"_a = array(b.z_unit_values), "x_mix"_a = array_or_none(b.x_mix),
                    "z_mix"_a = array_or_none(b.z_mix), "y_shift"_a = b.y_shift, "y_scale"_a = b.y_scale,
                    "beta"_a = array(b.beta), "excluded"_a = indices(b.excluded), "weighted"_a = b.weighted,
                    "weight_scale"_a = b.weight_scale, "y_size"_a = b.y_size);
}

// The fields of Python's CompressedClusters except the basis; the blocks change hands.
py::dict clusters_dict(PackedClusters& packed, Index n_obs) {
    const auto [q, p1] = packed.layout;
    const py::ssize_t n_blocks = packed.n_blocks(), n_fields = packed.layout.n_fields();
    double* data = packed.data.release();
    const py::capsule owner(data, [](void* p) { AlignedDoubles::Free()(static_cast<double*>(p)); });
    const CompressedSums& sums = packed.sums;
    return py::dict("blocks"_a = MatrixArray({n_blocks, n_fields, py::ssize_t{lanes}}, data, owner),
                    "q"_a = q, "p1"_a = p1, "m"_a = packed.n_clusters, "n_obs"_a = n_obs,
                    "gram"_a = square(sums.gram, p1), "perp"_a = square(sums.perp, p1),
                    "log_weights"_a = sums.log_weights, "rank_Z"_a = sums.rank_Z, "z_in_x"_a = sums.z_in_x);
}

py::dict estimates_dict(const Estimates& e) {
    return py::dict("beta"_a = array(e.beta), "cov_beta"_a = array(e.cov_beta), "D"_a = array(e.D),
                    "sigma2"_a = e.sigma2, "loglik"_a = e.loglik, "theta"_a = array(e.theta));
}

// Only the status where that is not "fitted".
py::dict fit(const py::list& X, const py::list& Z, const py::array& y,
             const std::optional<py::array>& weights, const std::optional<py::array>& offset,
             const IndexArray& ptr, const std::optional<IndexArray>& order, const TermList& terms,
             std::optional<int> unit, bool reml, int max_evaluations) {
    const BoundInput bound(X, Z, y, weights, offset, ptr, order, terms, unit, reml, max_evaluations);
    FitOutcome out;
    without_gil([&](Interrupt& interrupt) {
        Workspace space;
        out = fit_rows(bound.input, space, evaluate_blocks, interrupt);
    });
    if (out.status != FitStatus::fitted) return py::dict("status"_a = describe(out.status));
    return py::dict("status"_a = describe(out.status), "basis"_a = basis_dict(out.basis),
                    "clusters"_a = clusters_dict(out.packed, out.problem.n_obs),
                    "keep"_a = indices(out.problem.keep), "constant"_a = out.problem.constant,
                    "optimum"_a = optimum_or_none(out.optimum),
                    "estimates"_a = estimates_dict(out.estimates));
}

}  // namespace

void bind_fit(py::module_& m) {
    m.def("fit_rows", &fit, py::arg("X"), py::arg("Z"), py::arg("y"), py::arg("weights"), py::arg("offset"),
          py::arg("ptr"), py::arg("order"), py::arg("terms"), py::arg("unit"), py::arg("reml"),
          py::arg("max_evaluations"));
}

}  // namespace lmmfast::bindings
