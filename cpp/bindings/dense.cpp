// The dense engine: totals, random effects and whitened residuals of buckets of patterns.
#include "arrays.hpp"
#include "bind.hpp"
#include "lmmfast/engines/dense/contracted.hpp"
#include "lmmfast/engines/dense/units.hpp"
#include "lmmfast/residual/registry.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

using PositionArray = py::array_t<std::int32_t, py::array::c_style>;
using Shape = std::vector<py::ssize_t>;

void require_shape(const py::array& a, const Shape& shape, const char* name) {
    if (std::equal(a.shape(), a.shape() + a.ndim(), shape.begin(), shape.end())) return;
    std::string message = std::string(name) + " must have the shape (";
    for (const py::ssize_t size : shape) message += std::to_string(size) + ", ";
    throw py::value_error(message.substr(0, message.size() - (shape.size() > 1 ? 2 : 1)) + ")");
}

// A bucket and its covariance, bound to arrays that it keeps alive.
class BoundBucket {
  public:
    DenseBucket bucket;
    DenseCovariance covariance;

    // Without A there are no clusters, only patterns: their shape is that of Z.
    BoundBucket(const std::optional<MatrixArray>& A, const MatrixArray& Z,
                const std::optional<MatrixArray>& counts,
                const std::optional<MatrixArray>& inverse_root_weights, const std::optional<MatrixArray>& G,
                const MatrixArray& kappa, const py::object& correlation, const std::optional<double>& nu,
                const MatrixArray& Lambda) {
        require(Z.ndim() == 4, "Z must have the shape (N, n, q, L)");
        bucket.n_packs = Z.shape(0);
        bucket.n = size(Z.shape(1), 1, "rows");
        bucket.q = size(Z.shape(2), 0, "columns of Z");
        bucket.n_lanes = static_cast<int>(Z.shape(3));
        require(bucket.n_lanes == 1 || bucket.n_lanes == lanes, "there must be 1 or 8 lanes");
        bucket.Z = keep(Z);
        if (A) bind_A(*A);
        if (counts) bucket.counts = keep(*counts, {N(), L()}, "counts");
        if (inverse_root_weights)
            bucket.inverse_root_weights =
                keep(*inverse_root_weights, {N(), n(), L()}, "inverse_root_weights");
        bucket.n_variance = size(kappa.size(), 0, "variance parameters");
        require_shape(kappa, {bucket.n_variance}, "kappa");
        require(G.has_value() || bucket.n_variance == 0, "kappa needs G");
        if (G) bucket.G = keep(*G, {N(), n(), bucket.n_variance, L()}, "G");
        covariance.kappa = keep(kappa);
        covariance.Lambda = keep(Lambda, {bucket.q, bucket.q}, "Lambda");
        bind_correlation(correlation);
        if (!nu) return;
        require(covariance.correlation.kind != Correlation::Kind::none, "a nugget needs a correlation");
        covariance.has_nugget = true;
        covariance.nu = *nu;
    }

    const double* c(const MatrixArray& values) { return keep(values, {bucket.p1}, "c"); }
    const double* root(const MatrixArray& values) { return keep(values, {bucket.q, bucket.q}, "root"); }

  private:
    py::ssize_t N() const { return bucket.n_packs; }
    py::ssize_t n() const { return bucket.n; }
    py::ssize_t L() const { return bucket.n_lanes; }

    static int size(py::ssize_t value, int least, const char* what) {
        require(value >= least && value <= max_p1, std::string("the number of ") + what + " must lie in " +
                                                       std::to_string(least) + " … " +
                                                       std::to_string(max_p1));
        return static_cast<int>(value);
    }
    const double* keep(const MatrixArray& a) {
        kept_.push_back(a);
        return a.data();
    }
    const double* keep(const MatrixArray& a, const Shape& shape, const char* name) {
        require_shape(a, shape, name);
        return keep(a);
    }
    void bind_A(const MatrixArray& A) {
        require(A.ndim() == 5, "A must have the shape (N, reps, n, p1, L)");
        bucket.reps = A.shape(1);
        bucket.p1 = size(A.shape(3), 1, "columns of A");
        bucket.A = keep(A, {N(), A.shape(1), n(), bucket.p1, L()}, "A");
    }
    void bind_correlation(const py::object& given) {
        if (given.is_none()) return;
        const auto parts = py::cast<py::tuple>(given);
        require(!parts.empty(), "correlation is an empty tuple");
        const auto kind = py::cast<std::string>(parts[0]);
        if (kind == "distance") return bind_distance(parts);
        if (kind == "table") return bind_table(parts);
        require(kind == "given", "correlation must be of distance, table or given");
        bind_given(parts);
    }
    void bind_distance(const py::tuple& parts) {
        require(parts.size() == 4, "correlation must be (\"distance\", name, coords, psi)");
        const auto name = py::cast<std::string>(parts[1]);
        const auto coords = py::cast<MatrixArray>(parts[2]);
        structure_ = distance_correlation(name, py::cast<double>(parts[3]));
        require(structure_ != nullptr, "no residual structure of distances is called " + name);
        Correlation& out = covariance.correlation;
        require(coords.ndim() == 4 && coords.shape(2) >= 1, "coords must have the shape (N, n, d, L)");
        out.kind = Correlation::Kind::distance;
        out.n_params = 1;
        out.structure = structure_.get();
        out.n_coords = size(coords.shape(2), 1, "coordinates");
        out.coords = keep(coords, {N(), n(), out.n_coords, L()}, "coords");
    }
    void bind_table(const py::tuple& parts) {
        require(parts.size() == 4, "correlation must be (\"table\", positions, C, dC)");
        const auto positions = py::cast<PositionArray>(parts[1]);
        const auto C = py::cast<MatrixArray>(parts[2]), dC = py::cast<MatrixArray>(parts[3]);
        require(C.ndim() == 2 && dC.ndim() == 3, "C and dC must have the shapes (T, T) and (K, T, T)");
        Correlation& out = covariance.correlation;
        out.kind = Correlation::Kind::table;
        out.T = size(C.shape(0), 1, "levels");
        out.n_params = size(dC.shape(0), 0, "parameters");
        out.C = keep(C, {out.T, out.T}, "C");
        out.dC = keep(dC, {out.n_params, out.T, out.T}, "dC");
        require_shape(positions, {N(), n(), L()}, "positions");
        require(std::all_of(positions.data(), positions.data() + positions.size(),
                            [T = out.T](std::int32_t p) { return 0 <= p && p < T; }),
                "positions must lie in 0 … T - 1");
        out.positions = positions.data();
        kept_.push_back(positions);
    }
    void bind_given(const py::tuple& parts) {
        require(parts.size() == 3, "correlation must be (\"given\", C, dC)");
        const auto C = py::cast<MatrixArray>(parts[1]), dC = py::cast<MatrixArray>(parts[2]);
        require(dC.ndim() == 5, "dC must have the shape (N, K, n, n, L)");
        Correlation& out = covariance.correlation;
        out.kind = Correlation::Kind::given;
        out.n_params = size(dC.shape(1), 0, "parameters");
        out.C = keep(C, {N(), n(), n(), L()}, "C");
        out.dC = keep(dC, {N(), out.n_params, n(), n(), L()}, "dC");
    }

    std::vector<py::array> kept_;
    std::unique_ptr<DistanceCorrelation> structure_;
};

DenseTotals sum_parts(const std::vector<DensePart>& parts, bool with_kr, int n_threads) {
    DenseTotals found;
    without_gil([&](Interrupt& interrupt) { found = dense_totals(parts, with_kr, n_threads, interrupt); });
    return found;
}

MatrixArray flat(const DenseTotals& found) {
    return MatrixArray(static_cast<py::ssize_t>(found.values.size()), found.values.data());
}

py::tuple totals(const MatrixArray& A, const MatrixArray& Z, const MatrixArray& counts,
                 const std::optional<MatrixArray>& inverse_root_weights, const std::optional<MatrixArray>& G,
                 const MatrixArray& kappa, const py::object& correlation, const std::optional<double>& nu,
                 const MatrixArray& Lambda, bool with_kr, int n_threads) {
    const BoundBucket bound(A, Z, counts, inverse_root_weights, G, kappa, correlation, nu, Lambda);
    const DenseTotals found = sum_parts({{bound.bucket, bound.covariance}}, with_kr, n_threads);
    return py::make_tuple(flat(found), found.failed);
}

// Several buckets with the same parameters, each given by what differs between them.
std::vector<DensePart> bind_buckets(const py::sequence& buckets, const MatrixArray& kappa,
                                    const std::optional<double>& nu, const MatrixArray& Lambda,
                                    std::vector<BoundBucket>& bound) {
    require(!buckets.empty(), "there are no buckets");
    std::vector<DensePart> parts;
    bound.reserve(buckets.size());
    for (const py::handle& each : buckets) {
        const auto given = py::cast<py::tuple>(each);
        require(given.size() == 6, "a bucket is (A, Z, counts, inverse_root_weights, G, correlation)");
        require(MatrixArray::check_(given[0]) && MatrixArray::check_(given[1]),
                "A and Z must be C-contiguous arrays of float64");
        using Maybe = std::optional<MatrixArray>;
        bound.emplace_back(py::cast<MatrixArray>(given[0]), py::cast<MatrixArray>(given[1]),
                           py::cast<MatrixArray>(given[2]), py::cast<Maybe>(given[3]),
                           py::cast<Maybe>(given[4]), kappa, given[5], nu, Lambda);
        parts.push_back({bound.back().bucket, bound.back().covariance});
        const auto& [bucket, covariance] = parts.front();
        require(parts.back().bucket.p1 == bucket.p1 && parts.back().bucket.q == bucket.q &&
                    parts.back().covariance.correlation.n_params == covariance.correlation.n_params,
                "buckets must have the same columns of A and Z and the same parameters");
    }
    return parts;
}

py::tuple totals_of_buckets(const py::sequence& buckets, const MatrixArray& kappa,
                            const std::optional<double>& nu, const MatrixArray& Lambda, bool with_kr,
                            int n_threads) {
    std::vector<BoundBucket> bound;
    const std::vector<DensePart> parts = bind_buckets(buckets, kappa, nu, Lambda, bound);
    const DenseTotals found = sum_parts(parts, with_kr, n_threads);
    return py::make_tuple(flat(found), found.part);
}

// tr(W'kr_kl W) for each W (p1, n_columns), one after the other.
py::tuple contracted(const py::sequence& buckets, const MatrixArray& kappa, const std::optional<double>& nu,
                     const MatrixArray& Lambda, const std::vector<MatrixArray>& W, int n_threads) {
    std::vector<BoundBucket> bound;
    const std::vector<DensePart> parts = bind_buckets(buckets, kappa, nu, Lambda, bound);
    std::vector<Columns> groups;
    for (const MatrixArray& each : W) {
        require(each.ndim() == 2 && each.shape(0) == parts.front().bucket.p1,
                "each W must have as many rows as A has columns");
        groups.push_back({each.data(), static_cast<int>(each.shape(1))});
    }
    DenseTotals found;
    without_gil([&](Interrupt& interrupt) { found = dense_contracted(parts, groups, n_threads, interrupt); });
    return py::make_tuple(flat(found), found.part);
}

// Adds to out (n_units, size); returns the first pattern that fails, or -1.
Index unit_totals(const MatrixArray& A, const MatrixArray& Z, const MatrixArray& counts,
                  const std::optional<MatrixArray>& inverse_root_weights, const std::optional<MatrixArray>& G,
                  const MatrixArray& kappa, const py::object& correlation, const std::optional<double>& nu,
                  const MatrixArray& Lambda, const IndexArray& unit, MatrixArray out, int n_threads) {
    const BoundBucket bound(A, Z, counts, inverse_root_weights, G, kappa, correlation, nu, Lambda);
    const DenseBucket& bucket = bound.bucket;
    const int K = n_pairs(bucket.q) + n_residual_params(bucket, bound.covariance);
    require(out.ndim() == 2 && out.shape(1) == DenseTotalsLayout{K, bucket.p1, true}.size(),
            "out must have as many columns as there are totals");
    require_shape(unit, {Z.shape(0), Z.shape(3)}, "unit");
    require(std::all_of(unit.data(), unit.data() + unit.size(),
                        [n = out.shape(0)](std::int64_t i) { return 0 <= i && i < n; }),
            "units must lie in 0 … n_units - 1");
    double* to = out.mutable_data();
    Index failed = -1;
    without_gil([&](Interrupt& interrupt) {
        failed = dense_unit_totals(bucket, bound.covariance, unit.data(), to, n_threads, interrupt);
    });
    return failed;
}

MatrixArray effects(const MatrixArray& A, const MatrixArray& Z,
                    const std::optional<MatrixArray>& inverse_root_weights,
                    const std::optional<MatrixArray>& G, const MatrixArray& kappa,
                    const py::object& correlation, const std::optional<double>& nu, const MatrixArray& Lambda,
                    const MatrixArray& root, const MatrixArray& c, int n_threads) {
    BoundBucket bound(A, Z, std::nullopt, inverse_root_weights, G, kappa, correlation, nu, Lambda);
    const double *roots = bound.root(root), *weights = bound.c(c);
    MatrixArray b({A.shape(0), A.shape(1), Z.shape(2), Z.shape(3)});
    double* out = b.mutable_data();
    without_gil([&](Interrupt& interrupt) {
        dense_effects(bound.bucket, bound.covariance, roots, weights, out, n_threads, interrupt);
    });
    return b;
}

MatrixArray effects_covariance(const MatrixArray& Z, const std::optional<MatrixArray>& inverse_root_weights,
                               const std::optional<MatrixArray>& G, const MatrixArray& kappa,
                               const py::object& correlation, const std::optional<double>& nu,
                               const MatrixArray& Lambda, const MatrixArray& root, int n_threads) {
    BoundBucket bound(std::nullopt, Z, std::nullopt, inverse_root_weights, G, kappa, correlation, nu, Lambda);
    const double* roots = bound.root(root);
    MatrixArray cov({Z.shape(0), Z.shape(2), Z.shape(2), Z.shape(3)});
    double* out = cov.mutable_data();
    without_gil([&](Interrupt& interrupt) {
        dense_effects_covariance(bound.bucket, bound.covariance, roots, out, n_threads, interrupt);
    });
    return cov;
}

MatrixArray whitened(const MatrixArray& A, const MatrixArray& Z,
                     const std::optional<MatrixArray>& inverse_root_weights,
                     const std::optional<MatrixArray>& G, const MatrixArray& kappa,
                     const py::object& correlation, const std::optional<double>& nu,
                     const MatrixArray& Lambda, const MatrixArray& c, int n_threads) {
    BoundBucket bound(A, Z, std::nullopt, inverse_root_weights, G, kappa, correlation, nu, Lambda);
    const double* weights = bound.c(c);
    MatrixArray residuals({A.shape(0), A.shape(1), A.shape(2), A.shape(4)});
    double* out = residuals.mutable_data();
    without_gil([&](Interrupt& interrupt) {
        dense_whitened(bound.bucket, bound.covariance, weights, out, n_threads, interrupt);
    });
    return residuals;
}

}  // namespace

void bind_dense(py::module_& m) {
    m.def("dense_totals", &totals, py::arg("A").noconvert(), py::arg("Z").noconvert(), py::arg("counts"),
          py::arg("inverse_root_weights"), py::arg("G"), py::arg("kappa"), py::arg("correlation"),
          py::arg("nu"), py::arg("Lambda"), py::arg("with_kr"), py::arg("n_threads"));
    m.def("dense_totals_of_buckets", &totals_of_buckets, py::arg("buckets"), py::arg("kappa"), py::arg("nu"),
          py::arg("Lambda"), py::arg("with_kr"), py::arg("n_threads"));
    m.def("dense_contracted", &contracted, py::arg("buckets"), py::arg("kappa"), py::arg("nu"),
          py::arg("Lambda"), py::arg("W"), py::arg("n_threads"));
    m.def("dense_unit_totals", &unit_totals, py::arg("A").noconvert(), py::arg("Z").noconvert(),
          py::arg("counts"), py::arg("inverse_root_weights"), py::arg("G"), py::arg("kappa"),
          py::arg("correlation"), py::arg("nu"), py::arg("Lambda"), py::arg("unit"),
          py::arg("out").noconvert(), py::arg("n_threads"));
    m.def("dense_effects", &effects, py::arg("A").noconvert(), py::arg("Z").noconvert(),
          py::arg("inverse_root_weights"), py::arg("G"), py::arg("kappa"), py::arg("correlation"),
          py::arg("nu"), py::arg("Lambda"), py::arg("root"), py::arg("c"), py::arg("n_threads"));
    m.def("dense_effects_cov", &effects_covariance, py::arg("Z").noconvert(), py::arg("inverse_root_weights"),
          py::arg("G"), py::arg("kappa"), py::arg("correlation"), py::arg("nu"), py::arg("Lambda"),
          py::arg("root"), py::arg("n_threads"));
    m.def("dense_whitened", &whitened, py::arg("A").noconvert(), py::arg("Z").noconvert(),
          py::arg("inverse_root_weights"), py::arg("G"), py::arg("kappa"), py::arg("correlation"),
          py::arg("nu"), py::arg("Lambda"), py::arg("c"), py::arg("n_threads"));
}

}  // namespace lmmfast::bindings
