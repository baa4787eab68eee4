// The search for the maximum: Fisher scoring on D, then a trust region on its root.
//
// 1. natural steps: Fisher scoring on (vech D, sigma2), where V is linear. They converge in a few
//    evaluations when there are many clusters and D is well inside its cone.
// 2. root steps: Newton's method in a trust region on the root parameters phi, D = Lambda Lambda', with
//    the information in D pulled back. A zero variance is a stationary point inside; a saddle shows as a
//    negative eigenvalue, which is followed.
//
// (docs/algorithm.md, section 4.) A search asks for totals and is told them, so that a caller can advance
// many of them side by side.
#pragma once

#include "lmmfast/search/optimum.hpp"

namespace lmmfast {

struct SearchOptions {
    int max_evaluations = 200;
    const double* start = nullptr;  // phi (n_params,); default: D = I
    bool identified = false;        // whether the start may be the first point: the design is known to do
    bool restarts = true;           // of few rows, whether to look for a higher maximum elsewhere
};

class Search {
  public:
    // `covariance` has to outlive the search.
    Search(Problem problem, const RandomCovariance& covariance, const SearchOptions& options)
        : problem_(std::move(problem)),
          covariance_(&covariance),
          max_evaluations_(options.max_evaluations),
          restarts_left_(options.restarts && problem_.n_obs <= few_rows ? 1 : 0) {
        if (options.start) start_ = Eigen::Map<const Vector>(options.start, covariance.n_params());
        identified_ = options.start && options.identified;
        with_kr_ = !identified_ && kr_is_affordable() && problem_.n_obs <= exact_start_rows;
        optimum_.trace.reserve(32);
        const int q = covariance.q();
        ask(identified_ ? start_ : covariance.phi(RowMatrix::Identity(q, q)),
            options.start && !identified_ ? Step::check : Step::start);
    }

    bool done() const { return done_; }
    // Where totals are wanted next, (q, q) row-major, and whether second-order sums are wanted too.
    const double* Lambda() const { return new_.Lambda.data(); }
    bool with_kr() const { return with_kr_; }
    const Optimum& optimum() const { return optimum_; }

    // The totals at Lambda().
    void tell(const Totals& totals) {
        const bool exists = evaluate(totals);
        switch (step_) {
            case Step::check:
            case Step::start:
                return after_start(exists);
            case Step::natural:
                return after_natural(exists);
            case Step::root:
                return after_root(exists);
            case Step::restart:
                return after_restart(exists);
            case Step::snap:
                return after_snap(exists);
        }
    }

  private:
    static constexpr double infinity = std::numeric_limits<double>::infinity();
    // Where rounding stops the decrement from falling, it has to be below this.
    static constexpr double decrement_rounding = 1e-8;
    // Up to this number of rows the likelihood is searched for other maxima.
    static constexpr Index few_rows = 500;
    // Up to this many rows the information at the start is exact for REML: X may use up what little
    // there is about a variance.
    static constexpr Index exact_start_rows = 10000;

    // Whether the block of second-order sums fits into memory with ease.
    bool kr_is_affordable() const {
        constexpr Index max_kr_doubles = 4000000;
        const Index side = Index{covariance_->n_theta()} * (problem_.p() + 1);
        return side * side <= max_kr_doubles;
    }
    bool limit_reached() const { return static_cast<int>(optimum_.trace.size()) >= max_evaluations_; }

    void ask(const Vector& phi, Step step) {
        new_.phi = phi;
        covariance_->Lambda(phi, new_.Lambda);
        step_ = step;
    }

    // The point asked for; one entry of the trace if it exists.
    bool evaluate(const Totals& totals) {
        if (!new_.compute(problem_, *covariance_, totals)) return false;
        optimum_.trace.push_back(
            {step_, new_.loglik(), new_.decrement, new_.smallest_eigenvalue(), new_.phi});
        return true;
    }

    void end(Status status) {
        optimum_.status = status;
        done_ = true;
    }

    void after_start(bool exists) {
        if (!exists) return end(Status::failed);
        // The first point asked for is D = I, whatever the user's start, unless the design is known.
        if (!identified_ && !is_identified(problem_, *covariance_, new_)) return end(Status::not_identified);
        identified_ = true;
        with_kr_ = false;
        if (step_ == Step::check) return ask(start_, Step::start);
        std::swap(point_, new_);
        begin_climb();
    }

    // -- one climb: natural steps, then root steps -----------------------------------------------

    void begin_climb() {
        floored_ = 0;
        next_natural();
    }

    void next_natural() {
        if (point_.is_optimal() || limit_reached() || floored_ >= 4) return begin_root();
        const auto step = natural_step(problem_, *covariance_, point_);
        if (!step) return begin_root();
        left_cone_ = step->left_cone;
        floored_ += left_cone_;
        ask(covariance_->phi(step->D), Step::natural);
    }

    // Natural steps go on as long as they gain and stay within the cone.
    void after_natural(bool exists) {
        if (!exists || fell()) return begin_root();
        const bool slow = new_.decrement > 0.03 * point_.decrement;
        std::swap(point_, new_);
        if (slow && !left_cone_ && point_.decrement < 1) return begin_root();
        next_natural();
    }

    // Whether the log-likelihood fell, by more than rounding where the decrement fell too.
    bool fell() const {
        return point_.loglik() - new_.loglik() > (new_.decrement <= point_.decrement ? noise() : 0.0);
    }
    // Rounding of a log-likelihood.
    double noise() const { return 1e-12 * (std::abs(point_.loglik()) + static_cast<double>(problem_.n_obs)); }

    void begin_root() {
        radius_ = infinity;
        stalled_ = 0;
        next_root();
    }

    void next_root() {
        if (point_.is_optimal()) return end_climb(Status::converged);
        if (limit_reached()) return end_climb(Status::iteration_limit);
        with_kr_ = kr_is_affordable() && point_.decrement < 1.0;
        trust_ = trust_step(point_, radius_);
        ask(point_.phi + trust_.step, Step::root);
    }

    void after_root(bool exists) {
        const double rounding = noise(), gain = exists ? new_.loglik() - point_.loglik() : -infinity;
        const bool same = std::abs(gain) <= rounding;
        const double length = trust_.length, predicted = trust_.predicted;
        if (!(gain > 1e-3 * predicted || same)) {
            radius_ = 0.25 * length;
            ++stalled_;
            return length < 1e-12 ? end_root() : next_root();
        }
        stalled_ = new_.decrement > 0.5 * point_.decrement ? stalled_ + 1 : 0;
        if (gain > 0.7 * predicted) {
            radius_ = std::max(radius_, 3 * length);
        } else if (gain < 0.25 * predicted && predicted > rounding) {
            radius_ = 0.5 * length;
        }
        if (new_.decrement <= point_.decrement || gain > rounding) std::swap(point_, new_);
        const bool ended = stalled_ >= 4 && predicted <= rounding && point_.decrement <= decrement_rounding;
        return ended ? end_root() : next_root();
    }

    void end_root() {
        const bool converged = point_.is_optimal() || (point_.decrement <= decrement_rounding &&
                                                       point_.smallest_eigenvalue() > -1e-4);
        end_climb(converged ? Status::converged : Status::stalled);
    }

    // -- several climbs, and the end -------------------------------------------------------------

    void end_climb(Status status) {
        if (!climbed_) {
            climbed_ = true;
            optimum_.status = status;
            std::swap(best_, point_);
            if (status != Status::converged) return snap();
        } else if (status == Status::converged && point_.loglik() > best_.loglik() + 1e-9) {
            std::swap(best_, point_);
        }
        next_climb();
    }

    void next_climb() {
        if (restarts_left_ == 0) return snap();
        --restarts_left_;
        ask(covariance_->phi(covariance_->other_start()), Step::restart);
    }

    void after_restart(bool exists) {
        if (!exists) return next_climb();
        std::swap(point_, new_);
        begin_climb();
    }

    void snap() {
        RowMatrix D;
        if (!detail::snap_to_boundary(*covariance_, best_, D)) return conclude();
        ask(covariance_->phi(D), Step::snap);
    }

    void after_snap(bool exists) {
        if (exists && !(new_.loglik() < best_.loglik() - 1e-9)) std::swap(best_, new_);
        conclude();
    }

    void conclude() {
        detail::conclude(*covariance_, best_, optimum_);
        done_ = true;
    }

    Problem problem_;
    const RandomCovariance* covariance_;
    int max_evaluations_, restarts_left_;
    Vector start_;
    SearchPoint new_, point_, best_;
    Step step_ = Step::start;
    TrustStep trust_;
    double radius_ = infinity;
    int stalled_ = 0, floored_ = 0;
    bool with_kr_ = false, identified_ = false, left_cone_ = false, climbed_ = false, done_ = false;
    Optimum optimum_;
};

}  // namespace lmmfast
