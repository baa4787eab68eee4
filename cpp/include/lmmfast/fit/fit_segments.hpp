// The same small model fitted to many segments of the rows, side by side.
//
// What is out of the ordinary in one segment is a status of that segment; the others go on. Every fit is
// done by one thread, so that results do not depend on how many there are.
#pragma once

#include "lmmfast/fit/fit_rows.hpp"
#include "lmmfast/fit/fitted_effects.hpp"

namespace lmmfast {

// Clusters first … end - 1 of the data.
struct Segment {
    std::int64_t first = 0, end = 0;
};

// Numbers per segment of the flat arrays in SegmentFits.
struct SegmentSizes {
    Index p, q, n_terms, n_theta;

    SegmentSizes(const FitInput& input)
        : p(static_cast<Index>(input.data.X.size())),
          q(static_cast<Index>(input.data.Z.size())),
          n_terms(static_cast<Index>(input.terms.size())),
          n_theta(RandomCovariance(input.terms).n_params() + 1) {}
};

// Where the results go, entry s or row s for segment s. Of a segment that is not fitted only the status
// is written.
struct SegmentFits {
    FitStatus* status;
    double* loglik;
    double* beta;       // (S, p)
    double* cov_beta;   // (S, p, p)
    double* theta;      // (S, n_theta)
    double* D;          // (S, q, q): of the working basis, relative to sigma2
    double* decrement;  // (S,), as the next three
    double* smallest_eigenvalue;
    double* multiplier;  // NaN in the interior
    std::int64_t* evaluations;
    std::int64_t* ranks;  // (S, n_terms): rank of D of each term
    double* effects;      // (n_clusters, q): predictions of the random effects, rows as the clusters
};

namespace detail {

inline void write_segment(const FitOutcome& fit, const SegmentSizes& sizes, Index s, const SegmentFits& out) {
    const auto copy = [&](const auto& values, auto* to, Index n) {
        std::copy_n(values.data(), n, to + s * n);
    };
    const auto [p, q, n_terms, n_theta] = sizes;
    out.loglik[s] = fit.estimates.loglik;
    copy(fit.estimates.beta, out.beta, p);
    copy(fit.estimates.cov_beta, out.cov_beta, p * p);
    copy(fit.estimates.theta, out.theta, n_theta);
    copy(fit.optimum.D, out.D, q * q);
    out.decrement[s] = fit.optimum.decrement;
    out.smallest_eigenvalue[s] = fit.optimum.smallest_eigenvalue;
    out.multiplier[s] = fit.optimum.multiplier;
    out.evaluations[s] = static_cast<std::int64_t>(fit.optimum.trace.size());
    copy(fit.optimum.ranks, out.ranks, n_terms);
}

}  // namespace detail

// Fit each segment's clusters by themselves; `input` holds the clusters of all segments and what the
// models have in common. `evaluate` has the signature and meaning of evaluate_moments.
template <class Evaluate>
void fit_segments(const FitInput& input, const Segment* segments, Index n_segments, const Evaluate& evaluate,
                  const SegmentFits& out, Interrupt& interrupt) {
    // Segments of a task share their storage; few segments are still shared out over the threads.
    constexpr Index most_per_task = 32, least_tasks = 64;
    const Index per_task = std::clamp<Index>(n_segments / least_tasks, 1, most_per_task);
    const SegmentSizes sizes(input);
    parallel_for((n_segments + per_task - 1) / per_task, input.n_threads, interrupt, [&](Index task) {
        Workspace space;
        Interrupt none;
        FitInput one = input;
        one.n_threads = 1;
        const Index end = std::min(n_segments, (task + 1) * per_task);
        for (Index s = task * per_task; s < end; ++s) {
            interrupt.check();
            one.data.ptr = input.data.ptr + segments[s].first;
            one.data.n_clusters = segments[s].end - segments[s].first;
            const FitOutcome fit = fit_rows(one, space, evaluate, none);
            out.status[s] = fit.status;
            if (fit.status != FitStatus::fitted) continue;
            detail::write_segment(fit, sizes, s, out);
            predict_effects(fit, out.effects + segments[s].first * sizes.q, 1, none);
        }
    });
}

}  // namespace lmmfast
