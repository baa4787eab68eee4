// The search for the maximum, all of it without the GIL.
#include "lmmfast/search.hpp"

#include <optional>
#include <utility>

#include "arrays.hpp"
#include "bind.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

using namespace py::literals;

Structure structure(const std::string& name) {
    if (name == "unstructured") return Structure::unstructured;
    if (name == "diagonal") return Structure::diagonal;
    if (name == "identity") return Structure::identity;
    require(name == "compound symmetry", "unknown structure " + name);
    return Structure::compound_symmetry;
}

const char* status_name(Status status) {
    switch (status) {
        case Status::converged:
            return "converged";
        case Status::stalled:
            return "stalled";
        case Status::saddle:
            return "saddle";
        case Status::iteration_limit:
            return "iteration limit";
        case Status::not_identified:
            return "not identified";
        default:
            return "failed";
    }
}

MatrixArray array(const Vector& x) {
    return MatrixArray(static_cast<py::ssize_t>(x.size()), x.data());
}
MatrixArray array(const RowMatrix& A) {
    return MatrixArray({static_cast<py::ssize_t>(A.rows()), static_cast<py::ssize_t>(A.cols())}, A.data());
}

// Steps by name, and a row of numbers each: loglik, decrement, smallest eigenvalue, phi.
py::tuple trace(const std::vector<TraceEntry>& entries, int n_params) {
    py::list steps(entries.size());
    MatrixArray numbers({static_cast<py::ssize_t>(entries.size()), py::ssize_t{3} + n_params});
    double* row = numbers.mutable_data();
    for (std::size_t k = 0; k < entries.size(); ++k, row += 3 + n_params) {
        const TraceEntry& entry = entries[k];
        steps[k] = step_name(entry.step);
        row[0] = entry.loglik;
        row[1] = entry.decrement;
        row[2] = entry.smallest_eigenvalue;
        std::copy(entry.phi.begin(), entry.phi.end(), row + 3);
    }
    return py::make_tuple(steps, numbers);
}

// None where the search could not begin.
py::object maximise_blocks(const MatrixArray& data, int q, int p1, const MatrixArray& perp,
                           const std::vector<std::pair<std::string, int>>& terms, std::vector<int> keep,
                           Index n_obs, bool reml, double constant, const std::optional<MatrixArray>& start,
                           int max_evaluations, int n_threads) {
    const ClusterBlocks clusters = blocks(data, q, p1);
    require(perp.size() == Index{p1} * p1, "perp must be (p1, p1)");
    std::vector<RandomTerm> random_terms;
    for (const auto& [name, columns] : terms) random_terms.push_back({structure(name), columns});
    const RandomCovariance covariance(std::move(random_terms));
    require(covariance.q() == q, "the terms must have q columns");
    for (std::size_t j = 0; j < keep.size(); ++j)
        require(keep[j] >= (j ? keep[j - 1] + 1 : 0) && keep[j] < p1 - 1,
                "keep must be ascending columns of X");
    const Problem problem{std::move(keep), n_obs, reml, constant};
    require(problem.df() > 0, "there must be more rows than columns of X");
    require(!start || start->size() == covariance.n_params(), "start must be (n_params,)");
    require(max_evaluations >= 1, "max_evaluations must be positive");
    SearchOptions options;
    options.max_evaluations = max_evaluations;
    options.start = start ? start->data() : nullptr;
    Optimum found;
    without_gil([&](Interrupt& interrupt) {
        found = maximise(clusters, perp.data(), problem, covariance, options, n_threads, interrupt);
    });
    if (found.status == Status::failed || found.status == Status::not_identified) return py::none();
    return py::dict("status"_a = status_name(found.status), "phi"_a = array(found.phi),
                    "Lambda"_a = array(found.Lambda), "D"_a = array(found.D), "sigma2"_a = found.sigma2,
                    "beta"_a = array(found.beta), "S_inv_root"_a = array(found.S_inv_root),
                    "loglik"_a = found.loglik, "decrement"_a = found.decrement,
                    "smallest_eigenvalue"_a = found.smallest_eigenvalue, "ranks"_a = found.ranks,
                    "multiplier"_a = found.on_boundary() ? py::cast(found.multiplier) : py::none(),
                    "trace"_a = trace(found.trace, covariance.n_params()));
}

}  // namespace

void bind_search(py::module_& m) {
    m.def("maximise", &maximise_blocks, py::arg("data").noconvert(), py::arg("q"), py::arg("p1"),
          py::arg("perp"), py::arg("terms"), py::arg("keep"), py::arg("n_obs"), py::arg("reml"),
          py::arg("constant"), py::arg("start"), py::arg("max_evaluations"), py::arg("n_threads"));
}

}  // namespace lmmfast::bindings
