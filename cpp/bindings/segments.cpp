// Whole fits of many segments of the rows, all of it without the GIL.
#include "bind.hpp"
#include "evaluate.hpp"
#include "fit_input.hpp"
#include "lmmfast/fit/fit_segments.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

using namespace py::literals;

std::vector<Segment> read_segments(const IndexArray& segments, Index n_clusters) {
    require(segments.ndim() == 2 && segments.shape(1) == 2, "segments must have the shape (S, 2)");
    std::vector<Segment> out;
    for (py::ssize_t s = 0; s < segments.shape(0); ++s) {
        const Segment segment{segments.at(s, 0), segments.at(s, 1)};
        require(0 <= segment.first && segment.first <= segment.end && segment.end <= n_clusters,
                "a segment exceeds the clusters");
        out.push_back(segment);
    }
    return out;
}

MatrixArray nan_array(std::vector<py::ssize_t> shape) {
    MatrixArray out(std::move(shape));
    std::fill_n(out.mutable_data(), out.size(), std::numeric_limits<double>::quiet_NaN());
    return out;
}

IndexArray zero_array(std::vector<py::ssize_t> shape) {
    IndexArray out(std::move(shape));
    std::fill_n(out.mutable_data(), out.size(), 0);
    return out;
}

// NaN in place of the numbers of segments whose status is not "fitted".
py::dict fit_all(const py::list& X, const py::list& Z, const py::array& y,
                 const std::optional<py::array>& weights, const std::optional<py::array>& offset,
                 const IndexArray& ptr, const std::optional<IndexArray>& order, const IndexArray& segments,
                 const TermList& terms, std::optional<int> unit, bool reml, int max_evaluations,
                 int n_threads) {
    BoundInput bound(X, Z, y, weights, offset, ptr, order, terms, unit, reml, max_evaluations);
    require(n_threads >= 1, "n_threads must be positive");
    bound.input.n_threads = n_threads;
    const std::vector<Segment> list = read_segments(segments, bound.input.data.n_clusters);
    const auto S = static_cast<py::ssize_t>(list.size());
    const SegmentSizes sizes(bound.input);
    std::vector<FitStatus> status(list.size(), FitStatus::not_converged);
    MatrixArray loglik = nan_array({S}), beta = nan_array({S, sizes.p}),
                cov_beta = nan_array({S, sizes.p, sizes.p}), theta = nan_array({S, sizes.n_theta}),
                D = nan_array({S, sizes.q, sizes.q}), decrement = nan_array({S}),
                smallest_eigenvalue = nan_array({S}), multiplier = nan_array({S}),
                effects = nan_array({bound.input.data.n_clusters, sizes.q});
    IndexArray evaluations = zero_array({S}), ranks = zero_array({S, sizes.n_terms});
    const SegmentFits out{status.data(),
                          loglik.mutable_data(),
                          beta.mutable_data(),
                          cov_beta.mutable_data(),
                          theta.mutable_data(),
                          D.mutable_data(),
                          decrement.mutable_data(),
                          smallest_eigenvalue.mutable_data(),
                          multiplier.mutable_data(),
                          evaluations.mutable_data(),
                          ranks.mutable_data(),
                          effects.mutable_data()};
    without_gil([&](Interrupt& interrupt) {
        fit_segments(bound.input, list.data(), S, evaluate_blocks, out, interrupt);
    });
    py::array_t<bool> fitted(S);
    for (py::ssize_t s = 0; s < S; ++s)
        fitted.mutable_at(s) = status[static_cast<std::size_t>(s)] == FitStatus::fitted;
    return py::dict("fitted"_a = fitted, "loglik"_a = loglik, "beta"_a = beta, "cov_beta"_a = cov_beta,
                    "theta"_a = theta, "D"_a = D, "decrement"_a = decrement,
                    "smallest_eigenvalue"_a = smallest_eigenvalue, "multiplier"_a = multiplier,
                    "evaluations"_a = evaluations, "ranks"_a = ranks, "effects"_a = effects);
}

}  // namespace

void bind_segments(py::module_& m) {
    m.def("fit_segments", &fit_all, py::arg("X"), py::arg("Z"), py::arg("y"), py::arg("weights"),
          py::arg("offset"), py::arg("ptr"), py::arg("order"), py::arg("segments"), py::arg("terms"),
          py::arg("unit"), py::arg("reml"), py::arg("max_evaluations"), py::arg("n_threads"));
}

}  // namespace lmmfast::bindings
