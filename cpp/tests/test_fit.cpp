// Whole fits against dense algebra: likelihood, generalised least squares, a vanishing gradient; what
// is out of the ordinary ends with its status.
#include <numbers>
#include <numeric>
#include <thread>

#include "check.hpp"
#include "lmmfast/lmmfast.hpp"

namespace lmmfast::testing::test_fit {

namespace {

struct Data {
    Eigen::MatrixXd X, Z;
    Eigen::VectorXd y, weights, offset;
    std::vector<std::int64_t> groups;
};

// m groups of n_i rows: X = 1, t, x …; Z = 1, t; groups are 7, 17, 27, … in an order without order.
Data random_data(int m, int n_i, int p, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    const int n = m * n_i;
    Data d;
    d.X = Eigen::MatrixXd::NullaryExpr(n, p, [&] { return normal(generator); });
    d.X.col(0).setOnes();
    for (int i = 0; i < n; ++i) d.groups.push_back(10 * (i % m) + 7);
    std::shuffle(d.groups.begin(), d.groups.end(), generator);
    d.Z = d.X.leftCols(2);
    const Eigen::MatrixXd b = Eigen::MatrixXd::NullaryExpr(10 * m, 2, [&] { return normal(generator); });
    d.y = Eigen::VectorXd::NullaryExpr(n, [&] { return normal(generator); }) + d.X.rowwise().sum();
    for (int i = 0; i < n; ++i) {
        const auto g = d.groups[static_cast<std::size_t>(i)];
        d.y[i] += b(g, 0) * d.Z(i, 0) + 0.5 * (b(g, 0) + b(g, 1)) * d.Z(i, 1);
    }
    d.weights = Eigen::VectorXd::NullaryExpr(n, [&] { return std::exp(0.5 * normal(generator)); });
    d.offset = Eigen::VectorXd::NullaryExpr(n, [&] { return normal(generator); });
    return d;
}

// Everything about a model at given D and sigma2, from the dense covariance matrix of y.
struct Dense {
    Eigen::VectorXd beta;
    Eigen::MatrixXd cov_beta;
    double loglik = 0.0;

    Dense(const Data& d, const Eigen::MatrixXd& D, double sigma2, bool reml, bool weighted) {
        const Index n = d.y.size(), p = d.X.cols();
        Eigen::MatrixXd V = Eigen::MatrixXd::Zero(n, n);
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < n; ++j)
                if (d.groups[static_cast<std::size_t>(i)] == d.groups[static_cast<std::size_t>(j)])
                    V(i, j) = d.Z.row(i) * D * d.Z.row(j).transpose();
        for (Index i = 0; i < n; ++i) V(i, i) += weighted ? sigma2 / d.weights[i] : sigma2;
        const Eigen::LLT<Eigen::MatrixXd> llt(V);
        const Eigen::VectorXd y = weighted ? Eigen::VectorXd(d.y - d.offset) : d.y;
        cov_beta = (d.X.transpose() * llt.solve(d.X)).inverse();
        beta = cov_beta * (d.X.transpose() * llt.solve(y));
        const Eigen::VectorXd r = y - d.X * beta;
        const double df = static_cast<double>(reml ? n - p : n);
        double value = df * std::log(2 * std::numbers::pi) + r.dot(llt.solve(r));
        for (Index i = 0; i < n; ++i) value += 2 * std::log(llt.matrixL()(i, i));
        if (reml) value -= std::log(cov_beta.determinant());
        loglik = -0.5 * value;
    }
};

FitOptions options_for(const Data& d, bool reml, bool weighted, std::vector<RandomTerm> terms = {}) {
    FitOptions options;
    options.reml = reml;
    options.terms = std::move(terms);
    if (weighted) {
        options.weights = d.weights.data();
        options.offset = d.offset.data();
    }
    return options;
}

double relative(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
    return (a - b).norm() / b.norm();
}

void check_optimum(const Data& d, bool reml, bool weighted, const std::vector<RandomTerm>& terms) {
    const Fit found = fit(d.y, d.X, d.Z, d.groups, options_for(d, reml, weighted, terms));
    CHECK(found.converged && found.status == "fitted");
    const auto loglik = [&](const Eigen::MatrixXd& D, double sigma2) {
        return Dense(d, D, sigma2, reml, weighted).loglik;
    };
    const Dense dense(d, found.D, found.sigma2, reml, weighted);
    CHECK(close(found.loglik, dense.loglik, 1e-11));
    CHECK(relative(found.beta, dense.beta) < 1e-9);
    CHECK(relative(found.cov_beta, dense.cov_beta) < 1e-9);
    // No way up: along sigma2 and along each parameter of D.
    const double h = 1e-4;
    const auto slope = [&](const Eigen::MatrixXd& by, double by_sigma2) {
        return (loglik(found.D + h * by, found.sigma2 + h * by_sigma2) -
                loglik(found.D - h * by, found.sigma2 - h * by_sigma2)) /
               (2 * h);
    };
    CHECK(std::abs(slope(Eigen::MatrixXd::Zero(2, 2), 1.0)) < 1e-4);
    const RandomCovariance covariance(terms.empty() ? std::vector<RandomTerm>{{Structure::unstructured, 2}}
                                                    : terms);
    for (int k = 0; k < covariance.n_params(); ++k)
        CHECK(std::abs(slope(covariance.from_natural(Vector::Unit(covariance.n_params(), k)), 0.0)) < 1e-4);
}

void fits_are_optima() {
    const Data d = random_data(20, 5, 3, 1);
    for (const bool reml : {true, false})
        for (const bool weighted : {true, false}) {
            check_optimum(d, reml, weighted, {});
            check_optimum(d, reml, weighted, {{Structure::diagonal, 2}});
            check_optimum(d, reml, weighted, {{Structure::identity, 2}});
            check_optimum(d, reml, weighted, {{Structure::compound_symmetry, 2}});
            check_optimum(d, reml, weighted, {{Structure::unstructured, 1}, {Structure::unstructured, 1}});
        }
}

void random_effects_are_predicted() {
    const Data d = random_data(8, 6, 2, 2);
    const Fit found = fit(d.y, d.X, d.Z, d.groups);
    CHECK(found.groups.size() == 8 && found.groups.front() == 7 && found.groups.back() == 77);
    for (std::size_t i = 0; i < found.groups.size(); ++i) {
        std::vector<int> rows;
        for (int k = 0; k < d.y.size(); ++k)
            if (d.groups[static_cast<std::size_t>(k)] == found.groups[i]) rows.push_back(k);
        const Eigen::MatrixXd Z = d.Z(rows, Eigen::all), X = d.X(rows, Eigen::all);
        Eigen::MatrixXd V = Z * found.D * Z.transpose();
        V.diagonal().array() += found.sigma2;
        const Eigen::VectorXd r = d.y(rows) - X * found.beta;
        const Eigen::VectorXd b = found.D * Z.transpose() * V.llt().solve(r);
        CHECK(relative(found.random_effects.row(static_cast<Index>(i)).transpose(), b) < 1e-9);
    }
}

void units_do_not_matter() {
    const Data d = random_data(30, 4, 3, 3);
    const Fit plain = fit(d.y, d.X, d.Z, d.groups);
    Data moved = d;
    moved.X.col(1) = 1e6 * d.X.col(1).array() + 2e9;
    moved.Z.col(1) = moved.X.col(1);
    moved.y = 1e-5 * d.y;
    const Fit other = fit(moved.y, moved.X, moved.Z, moved.groups);
    CHECK(other.converged);
    CHECK(close(other.beta[1] * 1e6 * 1e5, plain.beta[1], 1e-8));
    CHECK(close(other.sigma2 * 1e10, plain.sigma2, 1e-8));
    CHECK(close(other.D(1, 1) * 1e12 * 1e10, plain.D(1, 1), 1e-7));
    const double jacobian = (120 - 3) * std::log(1e5) - std::log(1e6);
    CHECK(close(other.loglik, plain.loglik + jacobian, 1e-8));
}

std::string status_of(const Data& d, FitOptions options = {}) {
    const Fit found = fit(d.y, d.X, d.Z, d.groups, options);
    CHECK(found.converged == (found.status == "fitted"));
    if (!found.converged) CHECK(std::isnan(found.loglik) && std::isnan(found.beta[0]));
    return found.status;
}

void irregular_data_have_a_status() {
    const Data good = random_data(20, 5, 3, 4);
    CHECK(status_of(good) == "fitted");
    Data d = good;
    d.y[3] = std::numeric_limits<double>::quiet_NaN();
    CHECK(status_of(d) == describe(FitStatus::not_finite));
    d = good;
    d.Z(5, 1) = std::numeric_limits<double>::infinity();
    CHECK(status_of(d) == describe(FitStatus::not_finite));
    d = good;
    d.weights[7] = 0.0;
    CHECK(status_of(d, options_for(d, true, true)) == describe(FitStatus::bad_weights));
    d = good;
    d.groups.assign(d.groups.size(), 5);
    CHECK(status_of(d) == describe(FitStatus::single_cluster));
    d = good;
    d.X.col(2) = 3.0 * d.X.col(1).array() + 1.0;
    CHECK(status_of(d) == describe(FitStatus::rank_deficient));
    d = good;
    d.X.col(2).setZero();
    CHECK(status_of(d) == describe(FitStatus::rank_deficient));
    d = good;
    d.y = d.X * Eigen::Vector3d(1, 2, 3);
    CHECK(status_of(d) == describe(FitStatus::exact_response));
    d = good;
    for (int i = 0; i < d.y.size(); ++i)
        d.y[i] = static_cast<double>(d.groups[static_cast<std::size_t>(i)] % 4) * d.Z(i, 1);
    CHECK(status_of(d) == describe(FitStatus::exact_within));
    d = good;
    std::iota(d.groups.begin(), d.groups.end(), 0);
    CHECK(status_of(d) != "fitted");
    d = good;
    d.Z.col(1).setZero();
    CHECK(status_of(d) == describe(FitStatus::not_identified));
    FitOptions hurried;
    hurried.max_evaluations = 2;
    CHECK(status_of(good, hurried) == describe(FitStatus::not_converged));
    d = good;
    d.y *= 1e160;
    CHECK(status_of(d) == describe(FitStatus::out_of_range));
}

void arguments_are_checked() {
    const Data d = random_data(10, 4, 2, 5);
    const auto throws = [](const auto& call) {
        try {
            call();
        } catch (const std::invalid_argument&) {
            return true;
        }
        return false;
    };
    const std::vector<std::int64_t> few(d.groups.begin(), d.groups.end() - 1);
    CHECK(throws([&] { fit(d.y, d.X, d.Z, few); }));
    CHECK(throws([&] { fit(d.y, d.X.topRows(5), d.Z, d.groups); }));
    CHECK(throws([&] { fit(d.y, d.X, d.Z.leftCols(0), d.groups); }));
    FitOptions options;
    options.terms = {{Structure::unstructured, 3}};
    CHECK(throws([&] { fit(d.y, d.X, d.Z, d.groups, options); }));
    options.terms = {{Structure::unstructured, 1}, {Structure::compound_symmetry, 1}};
    CHECK(throws([&] { fit(d.y, d.X, d.Z, d.groups, options); }));
}

// Segments of one data set, side by side, a workspace per thread: ptr need not begin at row 0.
void fits_run_side_by_side() {
    const int n_segments = 24, m = 12, n_i = 5;
    Data d = random_data(n_segments * m, n_i, 3, 6);
    std::vector<std::int64_t> ptr;
    for (int i = 0; i <= n_segments * m; ++i) ptr.push_back(i * n_i);
    const auto fit_segment = [&](int s, Workspace& space) {
        FitInput input;
        input.data.X = lmmfast::detail::columns_of(d.X);
        input.data.Z = lmmfast::detail::columns_of(d.Z);
        input.data.y = {d.y.data(), 1};
        input.data.ptr = ptr.data() + s * m;
        input.data.n_clusters = m;
        input.terms = {{Structure::unstructured, 2}};
        Interrupt interrupt;
        const FitOutcome out = fit_rows(input, space, interrupt);
        CHECK(out.status == FitStatus::fitted);
        return out.estimates.theta;
    };
    const auto fit_all = [&](int n_threads) {
        std::vector<Vector> out(n_segments);
        std::vector<std::thread> threads;
        for (int t = 0; t < n_threads; ++t)
            threads.emplace_back([&, t] {
                Workspace space;
                for (int s = t; s < n_segments; s += n_threads)
                    out[static_cast<std::size_t>(s)] = fit_segment(s, space);
            });
        for (auto& thread : threads) thread.join();
        return out;
    };
    const auto one = fit_all(1), several = fit_all(5);
    for (std::size_t s = 0; s < one.size(); ++s) CHECK(one[s] == several[s]);
}

}  // namespace

TEST(fit) {
    fits_are_optima();
    random_effects_are_predicted();
    units_do_not_matter();
    irregular_data_have_a_status();
    arguments_are_checked();
    fits_run_side_by_side();
    std::puts("fit: ok");
}

}  // namespace lmmfast::testing::test_fit
