// Segments fitted side by side: the same bits as one at a time, a status where there is no fit.
#include <cstdio>
#include <random>

#include "check.hpp"
#include "lmmfast/fit.hpp"

namespace lmmfast::testing::test_segments {

namespace {

constexpr int n_segments = 150, m = 8, n_i = 5;
constexpr double none = -1.0;  // what the arrays hold beforehand

struct Data {
    Eigen::MatrixXd X;  // X = Z
    Eigen::VectorXd y;
    std::vector<std::int64_t> ptr;
    std::vector<Segment> segments;

    Data() : X(n_segments * m * n_i, 2), y(X.rows()) {
        std::mt19937 generator(1);
        std::normal_distribution<double> normal;
        for (Index i = 0; i < n_segments * m; ++i) {
            const double b0 = normal(generator), b1 = 0.7 * normal(generator);
            for (Index k = 0; k < n_i; ++k) {
                const Index row = i * n_i + k;
                X.row(row) << 1.0, static_cast<double>(k);
                y[row] = 1.0 + b0 + (0.5 + b1) * X(row, 1) + normal(generator);
            }
            ptr.push_back(i * n_i);
        }
        ptr.push_back(y.size());
        for (Index s = 0; s < n_segments; ++s) segments.push_back({s * m, (s + 1) * m});
    }

    FitInput input() const {
        FitInput out;
        for (Index j = 0; j < 2; ++j) {
            out.data.X.push_back({X.col(j).data(), 1});
            out.data.Z.push_back({X.col(j).data(), 1});
        }
        out.data.y = {y.data(), 1};
        out.data.ptr = ptr.data();
        out.data.n_clusters = n_segments * m;
        out.terms = {{Structure::unstructured, 2}};
        return out;
    }
};

struct Results {
    std::vector<FitStatus> status;
    std::vector<double> loglik, beta, cov_beta, theta, D, decrement, smallest_eigenvalue, multiplier, effects;
    std::vector<std::int64_t> evaluations, ranks;

    explicit Results(std::size_t S)
        : status(S, FitStatus::not_converged),
          loglik(S, none),
          beta(2 * S, none),
          cov_beta(4 * S, none),
          theta(4 * S, none),
          D(4 * S, none),
          decrement(S, none),
          smallest_eigenvalue(S, none),
          multiplier(S, none),
          effects(2 * m * S, none),
          evaluations(S),
          ranks(S) {}

    SegmentFits out() {
        return {status.data(),     loglik.data(),      beta.data(),      cov_beta.data(),
                theta.data(),      D.data(),           decrement.data(), smallest_eigenvalue.data(),
                multiplier.data(), evaluations.data(), ranks.data(),     effects.data()};
    }
};

Results fit_all(const Data& d, int n_threads) {
    FitInput input = d.input();
    input.n_threads = n_threads;
    Results results(d.segments.size());
    Interrupt interrupt;
    fit_segments(input, d.segments.data(), static_cast<Index>(d.segments.size()), results.out(), interrupt);
    return results;
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

void as_one_at_a_time() {
    const Data d;
    const Results results = fit_all(d, 3);
    Workspace space;
    for (Index s = 0; s < n_segments; ++s) {
        FitInput input = d.input();
        input.data.ptr += s * m;
        input.data.n_clusters = m;
        Interrupt interrupt;
        const FitOutcome one = fit_rows(input, space, interrupt);
        const auto k = static_cast<std::size_t>(s);
        CHECK(results.status[k] == one.status);
        if (one.status != FitStatus::fitted) continue;
        CHECK(results.loglik[k] == one.estimates.loglik);
        CHECK(Eigen::Map<const Vector>(&results.beta[2 * k], 2) == one.estimates.beta);
        CHECK(Eigen::Map<const RowMatrix>(&results.cov_beta[4 * k], 2, 2) == one.estimates.cov_beta);
        CHECK(Eigen::Map<const Vector>(&results.theta[4 * k], 4) == one.estimates.theta);
        CHECK(Eigen::Map<const RowMatrix>(&results.D[4 * k], 2, 2) == one.optimum.D);
        CHECK(results.decrement[k] == one.optimum.decrement);
        CHECK(results.smallest_eigenvalue[k] == one.optimum.smallest_eigenvalue);
        CHECK(std::isnan(results.multiplier[k]) == !one.optimum.on_boundary());
        CHECK(results.evaluations[k] == static_cast<std::int64_t>(one.optimum.trace.size()));
        CHECK(results.ranks[k] == one.optimum.ranks[0]);
        std::vector<double> effects(2 * m);
        predict_effects(one, effects.data(), 1, interrupt);
        CHECK(std::equal(effects.begin(), effects.end(), results.effects.begin() + 2 * m * s));
    }
}

void threads_do_not_change_a_bit() {
    const Data d;
    const Results one = fit_all(d, 1), several = fit_all(d, 5);
    CHECK(one.status == several.status);
    CHECK(same(one.loglik, several.loglik) && same(one.beta, several.beta));
    CHECK(same(one.cov_beta, several.cov_beta) && same(one.theta, several.theta));
}

void failures_stay_where_they_are() {
    Data d;
    const Results before = fit_all(d, 2);
    d.y.segment(3 * m * n_i, m * n_i).setConstant(2.0);
    d.X.col(1).segment(5 * m * n_i, m * n_i).setConstant(4.0);
    d.y[7 * m * n_i] = std::numeric_limits<double>::infinity();
    d.segments[9].end = d.segments[9].first + 1;
    d.segments[11].end = d.segments[11].first;  // no cluster at all
    const Results after = fit_all(d, 2);
    CHECK(after.status[3] == FitStatus::exact_response);
    CHECK(after.status[5] == FitStatus::rank_deficient);
    CHECK(after.status[7] == FitStatus::not_finite);
    CHECK(after.status[9] == FitStatus::single_cluster);
    CHECK(after.status[11] == FitStatus::single_cluster);
    for (std::size_t s = 0; s < n_segments; ++s) {
        const bool touched = s < 12 && s > 2 && s % 2 == 1;
        CHECK(touched ? after.loglik[s] == none : after.loglik[s] == before.loglik[s]);
    }
}

void can_be_interrupted() {
    const Data d;
    FitInput input = d.input();
    input.n_threads = 2;
    Results results(d.segments.size());
    Interrupt interrupt;
    interrupt.request();
    bool stopped = false;
    try {
        fit_segments(input, d.segments.data(), n_segments, results.out(), interrupt);
    } catch (const Interrupted&) {
        stopped = true;
    }
    CHECK(stopped && results.loglik[0] == none);
}

}  // namespace

TEST(segments) {
    as_one_at_a_time();
    threads_do_not_change_a_bit();
    failures_stay_where_they_are();
    can_be_interrupted();
    std::puts("segments: ok");
}

}  // namespace lmmfast::testing::test_segments
