// The search for the maximum, all of it without the GIL.
#include <optional>
#include <utility>

#include "arrays.hpp"
#include "bind.hpp"
#include "evaluate.hpp"
#include "optimum.hpp"
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

// Of each evaluation: the step, (loglik, decrement, smallest eigenvalue), phi.
py::tuple trace(const std::vector<TraceEntry>& entries) {
    py::list steps(entries.size()), numbers(entries.size()), phis(entries.size());
    for (std::size_t k = 0; k < entries.size(); ++k) {
        const TraceEntry& entry = entries[k];
        steps[k] = step_name(entry.step);
        numbers[k] = py::make_tuple(entry.loglik, entry.decrement, entry.smallest_eigenvalue);
        phis[k] = array(entry.phi);
    }
    return py::make_tuple(steps, numbers, phis);
}

}  // namespace

std::vector<RandomTerm> random_terms(const TermList& terms) {
    std::vector<RandomTerm> out;
    for (const auto& [name, columns] : terms) out.push_back({structure(name), columns});
    return out;
}

py::object optimum_or_none(const Optimum& found) {
    if (found.status == Status::failed || found.status == Status::not_identified) return py::none();
    return py::dict("status"_a = status_name(found.status), "phi"_a = array(found.phi),
                    "Lambda"_a = array(found.Lambda), "D"_a = array(found.D), "sigma2"_a = found.sigma2,
                    "beta"_a = array(found.beta), "S_inv_root"_a = array(found.S_inv_root),
                    "loglik"_a = found.loglik, "decrement"_a = found.decrement,
                    "smallest_eigenvalue"_a = found.smallest_eigenvalue, "ranks"_a = found.ranks,
                    "multiplier"_a = found.on_boundary() ? py::cast(found.multiplier) : py::none(),
                    "trace"_a = trace(found.trace));
}

namespace {

py::object maximise(const MatrixArray& data, int q, int p1, const MatrixArray& perp, const TermList& terms,
                    std::vector<int> keep, Index n_obs, bool reml, double constant,
                    const std::optional<MatrixArray>& start, int max_evaluations, int n_threads,
                    const std::optional<MatrixArray>& counts, const std::vector<int>& z_in_x,
                    bool identified) {
    const ClusterBlocks clusters = blocks(data, q, p1, counts, z_in_x);
    require(perp.size() == Index{p1} * p1, "perp must be (p1, p1)");
    const RandomCovariance covariance(random_terms(terms));
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
    options.identified = identified;
    Search search(problem, covariance, options);
    without_gil([&](Interrupt& interrupt) {
        while (!search.done())
            search.tell(evaluate_blocks(clusters, search.Lambda(), perp.data(), search.with_kr(), n_threads,
                                        interrupt));
    });
    return optimum_or_none(search.optimum());
}

}  // namespace

void bind_search(py::module_& m) {
    m.def("maximise", &maximise, py::arg("data").noconvert(), py::arg("q"), py::arg("p1"), py::arg("perp"),
          py::arg("terms"), py::arg("keep"), py::arg("n_obs"), py::arg("reml"), py::arg("constant"),
          py::arg("start"), py::arg("max_evaluations"), py::arg("n_threads"), py::arg("counts") = py::none(),
          py::arg("z_in_x") = std::vector<int>(), py::arg("identified") = false);
}

}  // namespace lmmfast::bindings
