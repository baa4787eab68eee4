// The crossed engine: a system of effects that rows are added to, and its elimination at one D.
#include "lmmfast/engines/crossed/crossed.hpp"

#include "arrays.hpp"
#include "bind.hpp"
#include "lmmfast/engines/crossed/moments.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

using Small = CrossedElimination::Small;
using SystemPointer = std::shared_ptr<CrossedSystem>;

SystemPointer make_system(const std::vector<IndexArray>& codes, const std::vector<Index>& counts,
                          const std::vector<std::vector<int>>& columns, const std::vector<int>& leading,
                          int p1, Index dense_any, Index dense_most, double dense_share, Index most_entries,
                          int n_threads) {
    require(!codes.empty() && codes.size() == counts.size() && codes.size() == columns.size(),
            "codes, counts and columns must be lists of one length");
    require(p1 >= 1 && p1 <= max_p1, "p1 must lie in 1 … " + std::to_string(max_p1));
    std::vector<CrossedFactor> factors(codes.size());
    for (std::size_t f = 0; f < codes.size(); ++f) {
        const auto& own = codes[f];
        require(own.ndim() == 1 && own.size() == codes[0].size(), "codes must be one-dimensional, of n rows");
        require(own.size() < std::numeric_limits<std::int32_t>::max(), "too many rows");
        require(!columns[f].empty() && columns[f].size() <= max_q,
                "a factor must have 1 … " + std::to_string(max_q) + " columns of Z");
        require(counts[f] >= 1 && counts[f] < std::numeric_limits<std::int32_t>::max(), "too many levels");
        require(std::all_of(own.data(), own.data() + own.size(),
                            [m = counts[f]](std::int64_t code) { return 0 <= code && code < m; }),
                "a code lies outside its factor's levels");
        factors[f] = {Codes(own.data(), own.data() + own.size()), counts[f], columns[f]};
    }
    std::vector<int> all;
    for (const auto& own : columns) all.insert(all.end(), own.begin(), own.end());
    std::sort(all.begin(), all.end());
    for (std::size_t k = 0; k < all.size(); ++k)
        require(all[k] == static_cast<int>(k), "the factors' columns must be 0 … q - 1, each once");
    for (const int f : leading)
        require(0 <= f && f < static_cast<int>(factors.size()), "leading must be factors");
    SystemPointer system;
    without_gil([&](Interrupt& interrupt) {
        system = std::make_shared<CrossedSystem>(
            std::move(factors), leading, p1, DenseLimits{dense_any, dense_most, dense_share, most_entries},
            n_threads, interrupt);
    });
    return system;
}

void add_rows(CrossedSystem& system, const MatrixArray& A, const MatrixArray& Z,
              const std::optional<MatrixArray>& weights, Index begin, int n_threads) {
    require(A.ndim() == 2 && A.shape(1) == system.p1(), "A must have the shape (n, p1)");
    require(Z.ndim() == 2 && Z.shape(0) == A.shape(0), "Z must have the shape (n, q)");
    require(!weights || (weights->ndim() == 1 && weights->shape(0) == A.shape(0)),
            "weights must have the shape (n,)");
    const auto n = static_cast<Index>(A.shape(0));
    require(begin >= 0 && begin + n <= system.n_rows(), "rows lie outside 0 … n - 1");
    for (Index f = 0; f < system.n_factors(); ++f)
        for (const int column : system.factor(f).columns)
            require(0 <= column && column < Z.shape(1), "columns must lie in 0 … q - 1");
    without_gil([&](Interrupt& interrupt) {
        system.add_rows(A.data(), Z.data(), weights ? weights->data() : nullptr, begin, n,
                        static_cast<int>(Z.shape(1)), n_threads, interrupt);
    });
}

MatrixArray matrix_of(const std::vector<double>& values, Index rows, Index columns) {
    MatrixArray out({rows, columns});
    std::copy(values.begin(), values.end(), out.mutable_data());
    return out;
}

// Positions of each factor's effects, (m_f, q_f).
std::vector<IndexArray> effects(const CrossedSystem& system) {
    std::vector<IndexArray> out;
    for (Index f = 0; f < system.n_factors(); ++f) {
        const Index m = system.factor(f).m, q = system.factor(f).q();
        IndexArray found({m, q});
        std::int64_t* at = found.mutable_data();
        for (Index j = 0; j < m; ++j)
            for (Index a = 0; a < q; ++a) *at++ = system.offset(system.node(f, j)) + a;
        out.push_back(found);
    }
    return out;
}

MatrixArray times_G(const CrossedSystem& system, const MatrixArray& g) {
    require(g.ndim() == 2 && g.shape(0) == system.n_effects(), "g must have the shape (N, r)");
    MatrixArray out({g.shape(0), g.shape(1)});
    without_gil([&](Interrupt&) { system.times_G(g.data(), out.mutable_data(), g.shape(1)); });
    return out;
}

// The parts of CrossedMoments.
py::tuple moments(const CrossedSystem& system, const MatrixArray& u, const MatrixArray& kappa) {
    require(u.ndim() == 1 && u.shape(0) == system.n_effects(), "u must have the shape (N,)");
    Index q = 0;
    for (Index f = 0; f < system.n_factors(); ++f) q += system.factor(f).q();
    require(kappa.ndim() == 2 && kappa.shape(0) == q && kappa.shape(1) == q,
            "kappa must have the shape (q, q)");
    CrossedMoments found(q);
    without_gil([&](Interrupt&) {
        found = crossed_moments(system, u.data(), Eigen::Map<const RowMatrix>(kappa.data(), q, q));
    });
    const auto copied = [](const RowMatrix& values) {
        MatrixArray out({values.rows(), values.cols()});
        std::copy_n(values.data(), values.size(), out.mutable_data());
        return out;
    };
    return py::make_tuple(copied(found.squares), copied(found.noise), copied(found.factors));
}

// X'Y, (a, b), by one thread in a fixed order.
MatrixArray cross_product(const MatrixArray& X, const MatrixArray& Y) {
    require(X.ndim() == 2 && Y.ndim() == 2 && X.shape(0) == Y.shape(0),
            "X and Y must have equal numbers of rows");
    MatrixArray out({X.shape(1), Y.shape(1)});
    const Eigen::Map<const RowMatrix> left(X.data(), X.shape(0), X.shape(1)),
        right(Y.data(), Y.shape(0), Y.shape(1));
    Eigen::Map<RowMatrix>(out.mutable_data(), X.shape(1), Y.shape(1)).noalias() = left.transpose() * right;
    return out;
}

// An elimination and the system that it refers to.
struct BoundElimination {
    SystemPointer system;
    std::unique_ptr<CrossedElimination> elimination;
    int n_threads;
    bool inverted = false;
};

BoundElimination eliminate(const SystemPointer& system, const std::vector<MatrixArray>& roots,
                           int n_threads) {
    require(static_cast<Index>(roots.size()) == system->n_factors(), "there must be a root of each factor");
    std::vector<Small> own;
    for (Index f = 0; f < system->n_factors(); ++f) {
        const auto& root = roots[static_cast<std::size_t>(f)];
        const int q = system->factor(f).q();
        require(root.ndim() == 2 && root.shape(0) == q && root.shape(1) == q,
                "a root must have the shape (q_f, q_f)");
        own.push_back(Eigen::Map<const RowMatrix>(root.data(), q, q));
    }
    BoundElimination out{system, nullptr, n_threads};
    without_gil([&](Interrupt& interrupt) {
        out.elimination = std::make_unique<CrossedElimination>(*system, std::move(own), n_threads, interrupt);
    });
    return out;
}

py::tuple solve(const BoundElimination& bound, const MatrixArray& B) {
    require(!bound.inverted, "an elimination cannot solve once it is inverted");
    require(B.ndim() == 2 && B.shape(0) == bound.system->n_effects(), "B must have the shape (N, r)");
    const auto r = static_cast<Index>(B.shape(1));
    MatrixArray v({bound.system->n_effects(), r}), reduction({r, r});
    std::copy_n(B.data(), B.size(), v.mutable_data());
    without_gil([&](Interrupt& interrupt) {
        const Eigen::Map<RowMatrix> values(v.mutable_data(), B.shape(0), r);
        Eigen::Map<RowMatrix>(reduction.mutable_data(), r, r) = bound.elimination->solve(values, interrupt);
    });
    return py::make_tuple(v, reduction);
}

// Z_j'V^-1 Z_j of each factor's levels, (m_f, q_f, q_f).
std::vector<MatrixArray> own_blocks(BoundElimination& bound) {
    require(!bound.inverted, "an elimination can be inverted once");
    bound.inverted = true;
    const CrossedSystem& system = *bound.system;
    std::vector<MatrixArray> out;
    for (Index f = 0; f < system.n_factors(); ++f) {
        const Index m = system.factor(f).m, q = system.factor(f).q();
        out.push_back(MatrixArray({m, q, q}));
    }
    std::vector<double*> to;
    for (auto& each : out) to.push_back(each.mutable_data());
    without_gil([&](Interrupt& interrupt) {
        const auto& T = bound.elimination->own_blocks(interrupt);
        for (Index f = 0; f < system.n_factors(); ++f) {
            const Index size = Index{system.factor(f).q()} * system.factor(f).q();
            for (Index j = 0; j < system.factor(f).m; ++j)
                std::copy_n(T.data() + system.diag(system.node(f, j)), size,
                            to[static_cast<std::size_t>(f)] + j * size);
        }
    });
    return out;
}

}  // namespace

void bind_crossed(py::module_& m) {
    py::class_<CrossedSystem, SystemPointer>(m, "CrossedSystem", py::module_local())
        .def(py::init(&make_system), py::arg("codes"), py::arg("counts"), py::arg("columns"),
             py::arg("leading"), py::arg("p1"), py::arg("dense_any"), py::arg("dense_most"),
             py::arg("dense_share"), py::arg("most_entries"), py::arg("n_threads"))
        .def("add_rows", &add_rows, py::arg("A"), py::arg("Z"), py::arg("weights"), py::arg("begin"),
             py::arg("n_threads"))
        .def("finish", &CrossedSystem::finish)
        .def("effects", &effects)
        .def("times_G", &times_G, py::arg("g"))
        .def("moments", &moments, py::arg("u"), py::arg("kappa"))
        .def("eliminate", &eliminate, py::arg("roots"), py::arg("n_threads"))
        .def_property_readonly("n_effects", &CrossedSystem::n_effects)
        .def_property_readonly("n_dense", &CrossedSystem::n_dense)
        .def_property_readonly("has_dense", &CrossedSystem::has_dense)
        .def_property_readonly("gram",
                               [](const CrossedSystem& s) { return matrix_of(s.gram(), s.p1(), s.p1()); })
        .def_property_readonly("B",
                               [](const CrossedSystem& s) { return matrix_of(s.B(), s.n_effects(), s.p1()); })
        .def_property_readonly("mean_G", [](const CrossedSystem& s) {
            std::vector<MatrixArray> out;
            for (Index f = 0; f < s.n_factors(); ++f)
                out.push_back(matrix_of(s.mean_G(f), s.factor(f).q(), s.factor(f).q()));
            return out;
        });
    m.def("cross_product", &cross_product, py::arg("X"), py::arg("Y"));
    py::class_<BoundElimination>(m, "CrossedElimination", py::module_local())
        .def_property_readonly("positive",
                               [](const BoundElimination& b) { return b.elimination->positive(); })
        .def_property_readonly("logdet", [](const BoundElimination& b) { return b.elimination->logdet(); })
        .def("solve", &solve, py::arg("B"))
        .def("own_blocks", &own_blocks);
}

}  // namespace lmmfast::bindings
