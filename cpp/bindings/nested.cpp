// The nested engine: packing, totals and random effects of factors that form a chain.
#include "arrays.hpp"
#include "bind.hpp"
#include "lmmfast/engines/nested/effects.hpp"
#include "lmmfast/engines/nested/given.hpp"
#include "lmmfast/engines/nested/pack.hpp"
#include "lmmfast/engines/nested/share.hpp"
#include "release.hpp"

namespace lmmfast::bindings {

namespace {

void require_size(const py::array& a, Index size, const char* name) {
    require(a.size() == size, std::string(name) + " must have " + std::to_string(size) + " entries");
}

void require_rising(const IndexArray& first, Index last, const char* name) {
    require(first.ndim() == 1 && first.size() >= 2 && first.data()[0] == 0 &&
                first.data()[first.size() - 1] == last &&
                std::is_sorted(first.data(), first.data() + first.size()),
            std::string(name) + " must rise from 0 to " + std::to_string(last));
}

// The tree, bound to arrays that it keeps alive.
class BoundTree {
  public:
    NestedTree tree;
    NestedTarget target;
    ClusterBlocks clusters;

    BoundTree(const std::vector<std::vector<int>>& columns, int p1, const std::vector<IndexArray>& first,
              const IndexArray& first_block, const std::vector<MatrixArray>& centre, MatrixArray perp,
              MatrixArray data, const std::optional<MatrixArray>& counts)
        : first_(first),
          first_block_(first_block),
          centre_(centre),
          perp_(perp),
          data_(data),
          counts_(counts) {
        const std::size_t depth = columns.size();
        require(depth >= 2 && first.size() == depth - 1 && centre.size() == depth - 1,
                "there must be two levels or more, and first and centre of all but the innermost");
        require(p1 >= 1 && p1 <= max_p1, "p1 must lie in 1 … " + std::to_string(max_p1));
        tree.p1 = p1;
        for (std::size_t l = 0; l < depth; ++l) {
            NestedLevel level;
            level.columns = columns[l];
            require(level.q() >= 1, "a factor needs a column of Z");
            const bool outer = l + 1 < depth;
            level.m = outer ? first[l].size() - 1 : first.back().data()[first.back().size() - 1];
            if (outer) level.first = first[l].data();
            if (outer) level.centre = centre[l].data();
            tree.levels.push_back(level);
        }
        require_columns();
        const Index m = tree.levels[depth - 2].m;
        for (std::size_t l = 0; l + 1 < depth; ++l) {
            require_rising(first[l], tree.levels[l + 1].m, "first");
            const Index q = tree.levels[l].q(), P = tree.n_outer_columns(static_cast<int>(l)) + p1;
            require_size(centre[l], tree.levels[l].m * q * P, "centre");
            target.centre.push_back(centre_[l].mutable_data());
        }
        const Layout layout = tree.innermost();
        clusters = blocks(data, layout.q, layout.p1, counts);
        require(first_block.size() == m + 1, "one first block per unit of the lowest outer level");
        require_rising(first_block, clusters.n_blocks, "first_block");
        require_size(perp, m * n_pairs(layout.p1), "perp");
        tree.first_block = first_block_.data();
        tree.perp = perp_.data();
        target.perp = perp_.mutable_data();
        target.blocks = data_.mutable_data();
    }

    // The innermost units themselves: none put together, eight to a block.
    void require_units() const {
        const std::size_t depth = tree.levels.size();
        const NestedLevel& around = tree.levels[depth - 2];
        bool whole = !clusters.counts;
        for (Index i = 0; i < around.m; ++i)
            whole &= tree.first_block[i + 1] - tree.first_block[i] ==
                     (around.first[i + 1] - around.first[i] + lanes - 1) / lanes;
        require(whole, "innermost units must lie in blocks of eight within the units around them");
    }
    void require_roots(const MatrixArray& Lambda, const MatrixArray& root) const {
        require_size(Lambda, Index{tree.q()} * tree.q(), "Lambda");
        require_size(root, Index{tree.q()} * tree.q(), "root");
    }

  private:
    void require_columns() const {
        std::vector<char> owned(static_cast<std::size_t>(tree.q()), 0);
        for (const NestedLevel& level : tree.levels)
            for (const int c : level.columns) {
                require(c >= 0 && c < tree.q() && !owned[c], "each column of Z belongs to one factor");
                owned[c] = 1;
            }
    }

    std::vector<IndexArray> first_;
    IndexArray first_block_;
    std::vector<MatrixArray> centre_;
    MatrixArray perp_, data_;
    std::optional<MatrixArray> counts_;
};

void pack(BoundTree& bound, const MatrixArray& A, const MatrixArray& Z,
          const std::optional<MatrixArray>& weights, const IndexArray& ptr, Index first_unit, Index n_units,
          int n_threads) {
    bound.require_units();
    const Index m = bound.tree.levels.back().m;
    require(ptr.ndim() == 1 && ptr.size() == m + 1 && std::is_sorted(ptr.data(), ptr.data() + m + 1),
            "ptr must have one entry more than there are innermost units, and not decrease");
    require(first_unit >= 0 && n_units >= 0 && first_unit + n_units <= m, "no such units");
    const NestedRows rows{A.data(),   Z.data(), weights ? weights->data() : nullptr,
                          first_unit, n_units,  ptr.data()};
    require_size(A, rows.n() * bound.tree.p1, "A");
    require_size(Z, rows.n() * bound.tree.q(), "Z");
    if (weights) require_size(*weights, rows.n(), "weights");
    without_gil(
        [&](Interrupt& interrupt) { pack_nested(bound.tree, rows, bound.target, n_threads, interrupt); });
}

MatrixArray array_of(const std::vector<double>& values) {
    return MatrixArray(static_cast<py::ssize_t>(values.size()), values.data());
}

MatrixArray evaluate(const BoundTree& bound, const MatrixArray& Lambda, bool with_kr, int n_threads) {
    bound.require_roots(Lambda, Lambda);
    std::vector<double> totals;
    without_gil([&](Interrupt& interrupt) {
        totals = evaluate_nested(bound.tree, bound.clusters, Lambda.data(), with_kr, n_threads, interrupt);
    });
    return array_of(totals);
}

// Totals where those of the innermost units are given, (m, size), with K_R parameters of the residuals; and
// for each outer level what random effects need, (m_l, size).
py::tuple absorb(const BoundTree& bound, const MatrixArray& units, int K_R, const MatrixArray& Lambda,
                 bool with_kr, int n_threads) {
    bound.require_roots(Lambda, Lambda);
    require(K_R >= 0 && K_R <= max_p1, "K_R must lie in 0 … " + std::to_string(max_p1));
    NestedTree tree = bound.tree;
    tree.K_R = K_R;
    const UnitLayout unit = tree.handed_out(tree.depth() - 1, true);
    require_size(units, tree.levels[tree.depth() - 2].m * DenseTotalsLayout{unit.K, unit.P, true}.size(),
                 "units");
    NestedRecord record(tree);
    std::vector<double> totals;
    without_gil([&](Interrupt& interrupt) {
        totals = absorb_nested(tree, units.data(), Lambda.data(), with_kr, n_threads, interrupt, &record);
    });
    py::list records;
    for (const std::vector<double>& of_level : record.of_level) records.append(array_of(of_level));
    return py::make_tuple(array_of(totals), records);
}

// One array per level, of the shape (m_l, q_l) or (m_l, q_l, q_l).
template <class Write>
std::vector<MatrixArray> by_level(const BoundTree& bound, bool square, const Write& write) {
    std::vector<MatrixArray> out;
    std::vector<double*> to;
    for (const NestedLevel& level : bound.tree.levels) {
        const py::ssize_t m = level.m, q = level.q();
        out.push_back(square ? MatrixArray({m, q, q}) : MatrixArray({m, q}));
        to.push_back(out.back().mutable_data());
    }
    without_gil([&](Interrupt& interrupt) { write(to.data(), interrupt); });
    return out;
}

std::vector<MatrixArray> effects(const BoundTree& bound, const MatrixArray& Lambda, const MatrixArray& root,
                                 const MatrixArray& c, int n_threads) {
    bound.require_units();
    bound.require_roots(Lambda, root);
    require_size(c, bound.tree.p1, "c");
    return by_level(bound, false, [&](double* const* out, Interrupt& interrupt) {
        nested_effects(bound.tree, bound.clusters, Lambda.data(), root.data(), c.data(), out, n_threads,
                       interrupt);
    });
}

std::vector<MatrixArray> effects_covariance(const BoundTree& bound, const MatrixArray& Lambda,
                                            const MatrixArray& root, int n_threads) {
    bound.require_units();
    bound.require_roots(Lambda, root);
    return by_level(bound, true, [&](double* const* out, Interrupt& interrupt) {
        nested_effects_covariance(bound.tree, bound.clusters, Lambda.data(), root.data(), out, n_threads,
                                  interrupt);
    });
}

// (data, counts, first_block) with units of one design put together, or None where that saves little.
py::object share(const BoundTree& bound, int n_threads) {
    bound.require_units();
    std::optional<SharedUnits> shared;
    without_gil([&](Interrupt& interrupt) {
        shared = share_nested(bound.tree, bound.clusters, n_threads, interrupt);
    });
    if (!shared) return py::none();
    const auto handed_over = [](AlignedDoubles& values, const std::vector<py::ssize_t>& shape) {
        double* data = values.release();
        const py::capsule owner(data, [](void* p) { AlignedDoubles::Free()(static_cast<double*>(p)); });
        return MatrixArray(shape, data, owner);
    };
    const py::ssize_t n_blocks = shared->first_block.back();
    IndexArray first_block(static_cast<py::ssize_t>(shared->first_block.size()));
    std::copy(shared->first_block.begin(), shared->first_block.end(), first_block.mutable_data());
    return py::make_tuple(handed_over(shared->data, {n_blocks, bound.clusters.layout.n_fields(), lanes}),
                          handed_over(shared->counts, {n_blocks, lanes}), first_block);
}

}  // namespace

void bind_nested(py::module_& m) {
    py::class_<BoundTree>(m, "NestedTree", py::module_local())
        .def(py::init<const std::vector<std::vector<int>>&, int, const std::vector<IndexArray>&,
                      const IndexArray&, const std::vector<MatrixArray>&, MatrixArray, MatrixArray,
                      const std::optional<MatrixArray>&>(),
             py::arg("columns"), py::arg("p1"), py::arg("first"), py::arg("first_block"), py::arg("centre"),
             py::arg("perp").noconvert(), py::arg("data").noconvert(), py::arg("counts") = py::none())
        .def("pack", &pack, py::arg("A"), py::arg("Z"), py::arg("weights"), py::arg("ptr"),
             py::arg("first_unit"), py::arg("n_units"), py::arg("n_threads"))
        .def("share", &share, py::arg("n_threads"))
        .def("evaluate", &evaluate, py::arg("Lambda"), py::arg("with_kr"), py::arg("n_threads"))
        .def("absorb", &absorb, py::arg("units"), py::arg("K_R"), py::arg("Lambda"), py::arg("with_kr"),
             py::arg("n_threads"))
        .def("effects", &effects, py::arg("Lambda"), py::arg("root"), py::arg("c"), py::arg("n_threads"))
        .def("effects_covariance", &effects_covariance, py::arg("Lambda"), py::arg("root"),
             py::arg("n_threads"));
}

}  // namespace lmmfast::bindings
