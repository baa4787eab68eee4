// Many responses of one design.
#include "arrays.hpp"
#include "bind.hpp"
#include "lmmfast/fit/share_responses.hpp"
#include "optimum.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

using namespace py::literals;

// Arrays of the results, a row a response; those of a search that could not begin hold NaN.
struct Results {
    MatrixArray numbers, beta, S_inv_root, D;
    IndexArray status, ranks, evaluations;

    Results(py::ssize_t n, py::ssize_t p, py::ssize_t q, py::ssize_t n_terms)
        : numbers({n, py::ssize_t{5}}),
          beta({n, p}),
          S_inv_root({n, p, p}),
          D({n, q, q}),
          status(n),
          ranks({n, n_terms}),
          evaluations(n) {
        for (MatrixArray* a : {&numbers, &beta, &S_inv_root, &D})
            std::fill_n(a->mutable_data(), a->size(), std::numeric_limits<double>::quiet_NaN());
        for (IndexArray* a : {&status, &ranks, &evaluations}) std::fill_n(a->mutable_data(), a->size(), 0);
    }

    py::dict dict() const {
        return py::dict("numbers"_a = numbers, "beta"_a = beta, "S_inv_root"_a = S_inv_root, "D"_a = D,
                        "status"_a = status, "ranks"_a = ranks, "evaluations"_a = evaluations);
    }
};

// Where one response's results go; no Python objects, so that threads may use it.
struct Rows {
    double *numbers, *beta, *S_inv_root, *D;
    std::int64_t *status, *ranks, *evaluations;
    Index p, q, n_terms;

    Rows(Results& r, Index p_, Index q_, Index n_terms_)
        : numbers(r.numbers.mutable_data()),
          beta(r.beta.mutable_data()),
          S_inv_root(r.S_inv_root.mutable_data()),
          D(r.D.mutable_data()),
          status(r.status.mutable_data()),
          ranks(r.ranks.mutable_data()),
          evaluations(r.evaluations.mutable_data()),
          p(p_),
          q(q_),
          n_terms(n_terms_) {}

    void write(Index k, const Optimum& found) const {
        status[k] = static_cast<std::int64_t>(found.status);
        evaluations[k] = static_cast<std::int64_t>(found.trace.size());
        if (found.status == Status::failed || found.status == Status::not_identified) return;
        const double row[] = {found.loglik, found.sigma2, found.decrement, found.smallest_eigenvalue,
                              found.multiplier};
        std::copy(std::begin(row), std::end(row), numbers + k * 5);
        std::copy_n(found.beta.data(), p, beta + k * p);
        std::copy_n(found.S_inv_root.data(), p * p, S_inv_root + k * p * p);
        std::copy_n(found.D.data(), q * q, D + k * q * q);
        std::copy_n(found.ranks.data(), n_terms, ranks + k * n_terms);
    }
};

// Of `data` the first p columns of A are X (all kept), the next ones the responses.
py::dict fit_responses(const MatrixArray& data, int q, int p1, Index n_clusters, int p,
                       const MatrixArray& constants, const MatrixArray& perp, const TermList& terms,
                       Index n_obs, bool reml, int max_evaluations, int n_threads,
                       const std::vector<int>& z_in_x) {
    const ClusterBlocks clusters = blocks(data, q, p1, std::nullopt, z_in_x);
    for (const int x : z_in_x) require(x < p, "z_in_x must be columns of X");
    const auto n = static_cast<int>(constants.size());
    require(p >= 0 && p + n <= p1, "there must be p + n_responses columns");
    require(perp.size() == Index{p1} * p1, "perp must be (p1, p1)");
    require(n_clusters >= 0 && (n_clusters + lanes - 1) / lanes == clusters.n_blocks,
            "n_clusters and blocks differ");
    const RandomCovariance covariance(random_terms(terms));
    require(covariance.q() == q, "the terms must have q columns");
    Problem problem;
    for (int j = 0; j < p; ++j) problem.keep.push_back(j);
    problem.n_obs = n_obs;
    problem.reml = reml;
    require(problem.df() > 0, "there must be more rows than columns of X");
    SearchOptions options;
    options.max_evaluations = max_evaluations;
    Results results(n, p, q, static_cast<py::ssize_t>(terms.size()));
    const Rows rows(results, p, q, static_cast<Index>(terms.size()));
    without_gil([&](Interrupt& interrupt) {
        auto responses =
            ManyResponses::from_blocks(clusters, n_clusters, p, n, perp.data(), constants.data());
        put_designs_together(responses, n_threads, interrupt);
        maximise_each(responses, problem, covariance, options, n_threads, interrupt,
                      [&](Index k, const Optimum& found) { rows.write(k, found); });
    });
    return results.dict();
}

// Responses of which Q'y and the sums beside Z are known, of a design that is known to tell the variances
// apart: `design` (n_clusters, R and Q'X), `projected` (n_responses, n_clusters, q), `perp` (n_responses,
// p + 1, p + 1), `counts` and `z_in_x` as in ManyResponses.
py::dict fit_projected(const MatrixArray& design, const MatrixArray& projected, const MatrixArray& perp,
                       const MatrixArray& constants, const TermList& terms, Index n_obs, bool reml,
                       const std::optional<MatrixArray>& start, int max_evaluations, int n_threads,
                       const std::optional<MatrixArray>& counts, const std::vector<int>& z_in_x) {
    const RandomCovariance covariance(random_terms(terms));
    require(projected.ndim() == 3 && design.ndim() == 2 && perp.ndim() == 3, "dimensions differ");
    const int q = covariance.q(), p1 = static_cast<int>(perp.shape(2));
    const Index n = projected.shape(0);
    ManyResponses responses;
    responses.layout = {q, p1};
    responses.n_clusters = projected.shape(1);
    require(q >= 1 && p1 >= 1 && p1 <= max_p1 && projected.shape(2) == q && constants.size() == n,
            "projected must be (n_responses, n_clusters, q)");
    require(perp.shape(0) == n && perp.shape(1) == p1, "perp must be (n_responses, p + 1, p + 1)");
    require(design.shape(0) == responses.n_clusters && design.shape(1) == responses.design_size(),
            "design must hold R and Q'X of each cluster");
    require(!counts || counts->size() == responses.n_clusters, "counts must have an entry for each cluster");
    require(!start || start->size() == covariance.n_params(), "start must have n_params entries");
    require(z_in_x.empty() || static_cast<int>(z_in_x.size()) == q, "z_in_x must be empty or name q columns");
    for (const int x : z_in_x) require(x >= 0 && x < p1 - 1, "z_in_x must be columns of X");
    Problem problem;
    for (int j = 0; j + 1 < p1; ++j) problem.keep.push_back(j);
    problem.n_obs = n_obs;
    problem.reml = reml;
    require(problem.df() > 0, "there must be more rows than columns of X");
    SearchOptions options;
    options.max_evaluations = max_evaluations;
    options.start = start ? start->data() : nullptr;
    options.identified = true;
    responses.design.assign(design.data(), design.data() + design.size());
    responses.elsewhere = projected.data();
    responses.perp.assign(perp.data(), perp.data() + perp.size());
    responses.constants.assign(constants.data(), constants.data() + n);
    responses.z_in_x = z_in_x;
    if (counts) responses.counts.assign(counts->data(), counts->data() + counts->size());
    Results results(n, p1 - 1, q, static_cast<py::ssize_t>(terms.size()));
    const Rows rows(results, p1 - 1, q, static_cast<Index>(terms.size()));
    without_gil([&](Interrupt& interrupt) {
        if (!counts) put_designs_together(responses, n_threads, interrupt);
        maximise_each(responses, problem, covariance, options, n_threads, interrupt,
                      [&](Index k, const Optimum& found) { rows.write(k, found); });
    });
    return results.dict();
}

}  // namespace

void bind_responses(py::module_& m) {
    m.def("fit_responses", &fit_responses, py::arg("data").noconvert(), py::arg("q"), py::arg("p1"),
          py::arg("n_clusters"), py::arg("p"), py::arg("constants"), py::arg("perp"), py::arg("terms"),
          py::arg("n_obs"), py::arg("reml"), py::arg("max_evaluations"), py::arg("n_threads"),
          py::arg("z_in_x") = std::vector<int>());
    m.def("fit_projected", &fit_projected, py::arg("design"), py::arg("projected"), py::arg("perp"),
          py::arg("constants"), py::arg("terms"), py::arg("n_obs"), py::arg("reml"), py::arg("start"),
          py::arg("max_evaluations"), py::arg("n_threads"), py::arg("counts") = std::nullopt,
          py::arg("z_in_x") = std::vector<int>());
}

}  // namespace lmmfast::bindings
