// A whole fit of a small data set: basis, compression, checks, search, estimates.
//
// Regular data only. Whatever is out of the ordinary ends with a status and no result, for a caller who
// knows names to explain. Fits may run side by side in any number of threads, a Workspace each.
#pragma once

#include <utility>

#include "lmmfast/base/aligned.hpp"
#include "lmmfast/compress/compress.hpp"
#include "lmmfast/fit/checks.hpp"
#include "lmmfast/fit/estimates.hpp"
#include "lmmfast/rows/choose_basis.hpp"

namespace lmmfast {

struct FitInput {
    DataView data;
    std::vector<RandomTerm> terms;
    int known_unit = -1;  // a column of X known to be the constant 1
    bool reml = true;
    SearchOptions search;
    int n_threads = 1;
};

// Clusters in the working basis, ready for evaluations.
struct PackedClusters {
    Layout layout;
    Index n_clusters = 0;
    AlignedDoubles data;
    CompressedSums sums;

    Index n_blocks() const { return (n_clusters + lanes - 1) / lanes; }
    ClusterBlocks blocks() const {
        const int* z_in_x = sums.z_in_x.empty() ? nullptr : sums.z_in_x.data();
        return {layout, n_blocks(), data.data(), nullptr, z_in_x};
    }
    Eigen::Map<const RowMatrix> gram() const { return {sums.gram.data(), layout.p1, layout.p1}; }
    Eigen::Map<const RowMatrix> perp() const { return {sums.perp.data(), layout.p1, layout.p1}; }
};

// Everything after `status` is of use only where that is `fitted`.
struct FitOutcome {
    FitStatus status = FitStatus::not_converged;
    Basis basis;
    PackedClusters packed;
    Problem problem;
    Optimum optimum;
    Estimates estimates;
};

// Storage that fits of like size use again.
struct Workspace {
    Gathered rows;
    WorkingRows working;
    std::vector<double> zeros;
    std::vector<std::int64_t> ptr;
};

namespace detail {

// Compress rows that are in the working basis already.
inline void pack(const FitInput& input, Workspace& space, PackedClusters& packed, Interrupt& interrupt) {
    const WorkingRows& w = space.working;
    Rows rows;
    for (Index j = 0; j < w.X.cols(); ++j) rows.X.push_back({w.X.col(j).data(), 1});
    for (Index k = 0; k < w.Z.cols(); ++k) rows.Z.push_back({w.Z.col(k).data(), 1});
    rows.y = {w.r.data(), 1};
    const Column weights{w.weights.data(), 1};
    if (w.weights.size()) rows.weights = &weights;
    space.zeros.assign(static_cast<std::size_t>(w.X.cols()), 0.0);
    rows.beta = space.zeros.data();
    rows.n_clusters = input.data.n_clusters;
    space.ptr.assign(input.data.ptr, input.data.ptr + rows.n_clusters + 1);
    for (auto& row : space.ptr) row -= input.data.ptr[0];
    rows.ptr = space.ptr.data();
    packed.sums = compress(packed.layout, rows, packed.data.data(), input.n_threads, interrupt);
}

// Basis and clusters. A second pass is made only where weights make least squares leave so much to X that
// the working residual is not small.
inline FitStatus prepare(const FitInput& input, Workspace& space, FitOutcome& out, Interrupt& interrupt) {
    constexpr int max_passes = 3;
    constexpr double nearly_all = 1 - 1e-4;
    out.basis = choose_basis(space.rows, input.terms, input.known_unit, {}, space.working);
    PackedClusters& packed = out.packed;
    packed.layout = {out.basis.q(), out.basis.p() + 1};
    packed.n_clusters = input.data.n_clusters;
    packed.data =
        AlignedDoubles(static_cast<std::size_t>(packed.n_blocks() * packed.layout.n_fields() * lanes));
    Regression on_X;
    std::vector<int> keep;
    for (int pass = 1;; ++pass) {
        pack(input, space, packed, interrupt);
        if (!packed.gram().allFinite()) return FitStatus::not_finite;
        if (!(packed.sums.min_weight > 0)) return FitStatus::bad_weights;
        const IndependentColumns columns = independent_columns(packed.gram(), out.basis);
        keep = columns.sorted();
        if (static_cast<int>(keep.size()) < out.basis.p()) return FitStatus::rank_deficient;
        on_X = regress(packed.gram(), columns);
        if (pass == max_passes || !(on_X.explained > nearly_all)) break;
        for (std::size_t k = 0; k < keep.size(); ++k)
            out.basis.beta[columns.taken[k]] += on_X.beta[static_cast<Index>(k)];
        space.working.set_residual(space.rows, out.basis);
    }
    const Index n_obs = space.rows.n();
    if (static_cast<Index>(keep.size()) >= n_obs) return FitStatus::too_few_rows;
    if (!leaves_variation(on_X, n_obs, out.basis.y_size)) return FitStatus::exact_response;
    if (!leaves_variation_within(packed.gram(), packed.perp(), keep, on_X.residual_sum, n_obs,
                                 packed.sums.rank_Z, input.reml))
        return FitStatus::exact_within;
    out.problem = make_problem(std::move(keep), n_obs, input.reml, out.basis, packed.sums.log_weights);
    return FitStatus::fitted;
}

}  // namespace detail

// Fit rows that lie in memory; `evaluate` has the signature and meaning of evaluate_moments.
template <class Evaluate>
FitOutcome fit_rows(const FitInput& input, Workspace& space, const Evaluate& evaluate, Interrupt& interrupt) {
    FitOutcome out;
    if (input.data.n_clusters < 2) {
        out.status = FitStatus::single_cluster;
        return out;
    }
    space.rows.gather(input.data);
    out.status = detail::prepare(input, space, out, interrupt);
    if (out.status != FitStatus::fitted) return out;
    const RandomCovariance covariance(input.terms);
    Search search(out.problem, covariance, input.search);
    while (!search.done())
        search.tell(evaluate(out.packed.blocks(), search.Lambda(), out.packed.sums.perp.data(),
                             search.with_kr(), input.n_threads, interrupt));
    out.optimum = search.optimum();
    if (out.optimum.status != Status::converged) {
        const bool identified = out.optimum.status != Status::not_identified;
        out.status = identified ? FitStatus::not_converged : FitStatus::not_identified;
        return out;
    }
    out.estimates = estimates(out.optimum, out.problem, out.basis, covariance);
    if (!out.estimates.in_range()) out.status = FitStatus::out_of_range;
    return out;
}

}  // namespace lmmfast
