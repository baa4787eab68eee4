// The moments engine: totals and random effects of compressed clusters.
#include "lmmfast/engines/moments/moments.hpp"

#include "arrays.hpp"
#include "bind.hpp"
#include "evaluate.hpp"
#include "lmmfast/engines/moments/random_effects.hpp"
#include "lmmfast/engines/moments/share.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

Totals evaluate_blocks(const ClusterBlocks& clusters, const double* Lambda, const double* perp, bool with_kr,
                       int n_threads, Interrupt& interrupt) {
    return evaluate_moments(clusters, Lambda, perp, with_kr, n_threads, interrupt);
}

namespace {

MatrixArray evaluate(const MatrixArray& data, int q, int p1, const MatrixArray& Lambda,
                     const MatrixArray& perp, bool with_kr, int n_threads,
                     const std::optional<MatrixArray>& counts, const std::vector<int>& z_in_x) {
    const ClusterBlocks clusters = blocks(data, q, p1, counts, z_in_x);
    require(Lambda.size() == q * q, "Lambda must be (q, q)");
    require(perp.size() == p1 * p1, "perp must be (p1, p1)");
    Totals totals(q, p1, with_kr);
    without_gil([&](Interrupt& interrupt) {
        totals = evaluate_moments(clusters, Lambda.data(), perp.data(), with_kr, n_threads, interrupt);
    });
    MatrixArray out(static_cast<py::ssize_t>(totals.values.size()));
    std::copy(totals.values.begin(), totals.values.end(), out.mutable_data());
    return out;
}

MatrixArray handed_over(AlignedDoubles& values, const std::vector<py::ssize_t>& shape) {
    double* data = values.release();
    const py::capsule owner(data, [](void* p) { AlignedDoubles::Free()(static_cast<double*>(p)); });
    return MatrixArray(shape, data, owner);
}

// (blocks, counts, n_designs), or None where sharing would not be faster.
py::object share(const MatrixArray& data, int q, int p1, Index n_clusters, int n_threads, Index passes) {
    const ClusterBlocks clusters = blocks(data, q, p1);
    require(n_clusters >= 0 && (n_clusters + lanes - 1) / lanes == clusters.n_blocks,
            "n_clusters and blocks differ");
    std::optional<SharedClusters> shared;
    without_gil([&](Interrupt& interrupt) {
        shared = share_designs(clusters, n_clusters, passes, n_threads, interrupt);
    });
    if (!shared) return py::none();
    const py::ssize_t n_blocks = shared->n_blocks;
    return py::make_tuple(handed_over(shared->data, {n_blocks, clusters.layout.n_fields(), lanes}),
                          handed_over(shared->counts, {n_blocks, lanes}), shared->n_designs);
}

void require_roots(int q, Index n_clusters, const ClusterBlocks& clusters, const MatrixArray& Lambda,
                   const MatrixArray& root) {
    require(Lambda.size() == q * q && root.size() == q * q, "Lambda and root must be (q, q)");
    require(n_clusters >= 0 && (n_clusters + lanes - 1) / lanes == clusters.n_blocks,
            "n_clusters and blocks differ");
}

MatrixArray effects(const MatrixArray& data, int q, int p1, Index n_clusters, const MatrixArray& Lambda,
                    const MatrixArray& root, const MatrixArray& c, int n_threads) {
    const ClusterBlocks clusters = blocks(data, q, p1);
    require_roots(q, n_clusters, clusters, Lambda, root);
    require(c.size() == p1, "c must be (p1,)");
    MatrixArray b({static_cast<py::ssize_t>(n_clusters), py::ssize_t{q}});
    double* out = b.mutable_data();
    without_gil([&](Interrupt& interrupt) {
        random_effects(clusters, n_clusters, Lambda.data(), root.data(), c.data(), out, n_threads, interrupt);
    });
    return b;
}

MatrixArray effects_covariance(const MatrixArray& data, int q, int p1, Index n_clusters,
                               const MatrixArray& Lambda, const MatrixArray& root, int n_threads) {
    const ClusterBlocks clusters = blocks(data, q, p1);
    require_roots(q, n_clusters, clusters, Lambda, root);
    MatrixArray covariance({static_cast<py::ssize_t>(n_clusters), py::ssize_t{q}, py::ssize_t{q}});
    double* out = covariance.mutable_data();
    without_gil([&](Interrupt& interrupt) {
        random_effects_covariance(clusters, n_clusters, Lambda.data(), root.data(), out, n_threads,
                                  interrupt);
    });
    return covariance;
}

}  // namespace

void bind_moments(py::module_& m) {
    m.def("evaluate", &evaluate, py::arg("data").noconvert(), py::arg("q"), py::arg("p1"), py::arg("Lambda"),
          py::arg("perp"), py::arg("with_kr"), py::arg("n_threads"), py::arg("counts") = py::none(),
          py::arg("z_in_x") = std::vector<int>());
    m.def("share", &share, py::arg("data").noconvert(), py::arg("q"), py::arg("p1"), py::arg("n_clusters"),
          py::arg("n_threads"), py::arg("passes"));
    m.def("random_effects", &effects, py::arg("data").noconvert(), py::arg("q"), py::arg("p1"),
          py::arg("n_clusters"), py::arg("Lambda"), py::arg("root"), py::arg("c"), py::arg("n_threads"));
    m.def("random_effects_covariance", &effects_covariance, py::arg("data").noconvert(), py::arg("q"),
          py::arg("p1"), py::arg("n_clusters"), py::arg("Lambda"), py::arg("root"), py::arg("n_threads"));
}

}  // namespace lmmfast::bindings
