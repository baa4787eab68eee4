// The Markov engine: totals, random effects and whitened residuals of rows in the order of time.
#include "arrays.hpp"
#include "bind.hpp"
#include "lmmfast/engines/markov/effects.hpp"
#include "lmmfast/engines/markov/units.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

using OptionalArray = std::optional<MatrixArray>;

// What all functions take, checked and seen as the core sees it.
struct MarkovModel {
    MarkovRows rows;
    MarkovPoint point;

    MarkovModel(const MatrixArray& A, const MatrixArray& Z, const IndexArray& ptr, const MatrixArray& lag,
                const OptionalArray& inverse_root_weights, const OptionalArray& G, const MatrixArray& kappa,
                const std::string& name, double psi, const std::optional<double>& nu,
                const MatrixArray& Lambda)
        : point{MarkovDecay(name, psi), nu.has_value(), nu.value_or(0.0), kappa.data(), Lambda.data()} {
        require(A.ndim() == 2 && Z.ndim() == 2 && Z.shape(0) == A.shape(0),
                "A and Z must have the same rows");
        const Index n = A.shape(0), q = Z.shape(1), K_v = kappa.size();
        require(A.shape(1) >= 1 && A.shape(1) <= max_p1, "p1 must lie in 1 … " + std::to_string(max_p1));
        require(q <= max_q, "q must lie in 0 … " + std::to_string(max_q));
        require(lag.size() == n, "lag must be (n,)");
        require(!inverse_root_weights || inverse_root_weights->size() == n,
                "inverse_root_weights must be (n,)");
        require(G ? G->ndim() == 2 && G->shape(0) == n && G->shape(1) == K_v : K_v == 0,
                "G must be (n, K_v) and kappa (K_v,)");
        require(K_v <= max_p1, "too many columns of G");
        require(Lambda.size() == q * q, "Lambda must be (q, q)");
        require(!nu || (*nu >= 0 && *nu < 1), "nu must lie in [0, 1)");
        require_clusters(ptr, n);
        rows = {static_cast<int>(A.shape(1)),
                static_cast<int>(q),
                static_cast<int>(K_v),
                ptr.size() - 1,
                ptr.data(),
                A.data(),
                Z.data(),
                lag.data(),
                inverse_root_weights ? inverse_root_weights->data() : nullptr,
                G ? G->data() : nullptr};
    }

    static void require_clusters(const IndexArray& ptr, Index n) {
        const std::int64_t* first = ptr.data();
        require(ptr.size() >= 1 && first[0] == 0 && first[ptr.size() - 1] == n,
                "ptr must run from 0 to the number of rows");
        for (py::ssize_t i = 1; i < ptr.size(); ++i)
            require(first[i - 1] <= first[i], "ptr must not decrease");
    }
};

py::tuple totals(const MatrixArray& A, const MatrixArray& Z, const IndexArray& ptr, const MatrixArray& lag,
                 const OptionalArray& inverse_root_weights, const OptionalArray& G, const MatrixArray& kappa,
                 const std::string& name, double psi, const std::optional<double>& nu,
                 const MatrixArray& Lambda, bool with_kr, int n_threads) {
    const MarkovModel model(A, Z, ptr, lag, inverse_root_weights, G, kappa, name, psi, nu, Lambda);
    MarkovTotals found;
    without_gil([&](Interrupt& interrupt) {
        found = markov_totals(model.rows, model.point, with_kr, n_threads, interrupt);
    });
    return py::make_tuple(MatrixArray(static_cast<py::ssize_t>(found.values.size()), found.values.data()),
                          found.failed);
}

// Adds to out (n_units, size); returns the first cluster that fails, or -1.
Index unit_totals(const MatrixArray& A, const MatrixArray& Z, const IndexArray& ptr, const MatrixArray& lag,
                  const OptionalArray& inverse_root_weights, const OptionalArray& G, const MatrixArray& kappa,
                  const std::string& name, double psi, const std::optional<double>& nu,
                  const MatrixArray& Lambda, const IndexArray& unit, MatrixArray out, int n_threads) {
    const MarkovModel model(A, Z, ptr, lag, inverse_root_weights, G, kappa, name, psi, nu, Lambda);
    const MarkovLayout layout{model.rows.q, model.rows.p1, n_residual_params(model.rows, model.point), true};
    require(out.ndim() == 2 && out.shape(1) == layout.size(),
            "out must have as many columns as there are totals");
    require(unit.ndim() == 1 && unit.size() == model.rows.m &&
                std::is_sorted(unit.data(), unit.data() + unit.size()) &&
                (unit.size() == 0 || (unit.data()[0] >= 0 && unit.data()[unit.size() - 1] < out.shape(0))),
            "units of clusters must not decrease, and lie in 0 … n_units - 1");
    double* to = out.mutable_data();
    Index failed = -1;
    without_gil([&](Interrupt& interrupt) {
        failed = markov_unit_totals(model.rows, model.point, unit.data(), to, n_threads, interrupt);
    });
    return failed;
}

void require_definite(Index failed) {
    require(failed < 0, "V of cluster " + std::to_string(failed) + " is not positive definite");
}

MatrixArray effects(const MatrixArray& A, const MatrixArray& Z, const IndexArray& ptr, const MatrixArray& lag,
                    const OptionalArray& inverse_root_weights, const OptionalArray& G,
                    const MatrixArray& kappa, const std::string& name, double psi,
                    const std::optional<double>& nu, const MatrixArray& Lambda, const MatrixArray& root,
                    const MatrixArray& c, int n_threads) {
    const MarkovModel model(A, Z, ptr, lag, inverse_root_weights, G, kappa, name, psi, nu, Lambda);
    require(root.size() == Lambda.size(), "root must be (q, q)");
    require(c.size() == model.rows.p1, "c must be (p1,)");
    MatrixArray b({static_cast<py::ssize_t>(model.rows.m), static_cast<py::ssize_t>(model.rows.q)});
    double* out = b.mutable_data();
    Index failed = -1;
    without_gil([&](Interrupt& interrupt) {
        failed = markov_effects(model.rows, model.point, root.data(), c.data(), out, n_threads, interrupt);
    });
    require_definite(failed);
    return b;
}

MatrixArray effects_covariance(const MatrixArray& A, const MatrixArray& Z, const IndexArray& ptr,
                               const MatrixArray& lag, const OptionalArray& inverse_root_weights,
                               const OptionalArray& G, const MatrixArray& kappa, const std::string& name,
                               double psi, const std::optional<double>& nu, const MatrixArray& Lambda,
                               const MatrixArray& root, int n_threads) {
    const MarkovModel model(A, Z, ptr, lag, inverse_root_weights, G, kappa, name, psi, nu, Lambda);
    require(root.size() == Lambda.size(), "root must be (q, q)");
    const auto m = static_cast<py::ssize_t>(model.rows.m), q = static_cast<py::ssize_t>(model.rows.q);
    MatrixArray covariance({m, q, q});
    double* out = covariance.mutable_data();
    Index failed = -1;
    without_gil([&](Interrupt& interrupt) {
        failed = markov_effects_covariance(model.rows, model.point, root.data(), out, n_threads, interrupt);
    });
    require_definite(failed);
    return covariance;
}

MatrixArray whitened(const MatrixArray& A, const MatrixArray& Z, const IndexArray& ptr,
                     const MatrixArray& lag, const OptionalArray& inverse_root_weights,
                     const OptionalArray& G, const MatrixArray& kappa, const std::string& name, double psi,
                     const std::optional<double>& nu, const MatrixArray& Lambda, const MatrixArray& c,
                     int n_threads) {
    const MarkovModel model(A, Z, ptr, lag, inverse_root_weights, G, kappa, name, psi, nu, Lambda);
    require(c.size() == model.rows.p1, "c must be (p1,)");
    MatrixArray x(A.shape(0));
    double* out = x.mutable_data();
    Index failed = -1;
    without_gil([&](Interrupt& interrupt) {
        failed = markov_whitened(model.rows, model.point, c.data(), out, n_threads, interrupt);
    });
    require_definite(failed);
    return x;
}

// The arguments that describe a model, followed by those of one function.
template <class Function, class... More>
void define(py::module_& m, const char* name, Function function, const More&... more) {
    m.def(name, function, py::arg("A").noconvert(), py::arg("Z").noconvert(), py::arg("ptr").noconvert(),
          py::arg("lag").noconvert(), py::arg("inverse_root_weights"), py::arg("G"), py::arg("kappa"),
          py::arg("name"), py::arg("psi"), py::arg("nu"), py::arg("Lambda"), more...);
}

}  // namespace

void bind_markov(py::module_& m) {
    define(m, "markov_totals", &totals, py::arg("with_kr"), py::arg("n_threads"));
    define(m, "markov_unit_totals", &unit_totals, py::arg("unit"), py::arg("out").noconvert(),
           py::arg("n_threads"));
    define(m, "markov_effects", &effects, py::arg("root"), py::arg("c"), py::arg("n_threads"));
    define(m, "markov_effects_cov", &effects_covariance, py::arg("root"), py::arg("n_threads"));
    define(m, "markov_whitened", &whitened, py::arg("c"), py::arg("n_threads"));
}

}  // namespace lmmfast::bindings
