// The search: maxima inside and on the boundary, likelihood and score against dense algebra, a saddle to
// start from, resumed step by step, the same bits for any number of threads.
#include "check.hpp"
#include "lmmfast/search/search.hpp"

namespace lmmfast::testing::test_search {

namespace {

Problem problem_of(const Sample& s, bool reml) {
    Problem problem;
    for (int j = 0; j < s.layout.p1 - 1; ++j) problem.keep.push_back(j);
    problem.n_obs = s.X.rows();
    problem.reml = reml;
    return problem;
}

// Adds random effects b_i = root u_i to the response, and compresses anew.
void add_effects(Sample& s, const Matrix& root, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    for (Index i = 0; i < s.m(); ++i) {
        const Eigen::VectorXd u =
            Eigen::VectorXd::NullaryExpr(root.cols(), [&] { return normal(generator); });
        s.y.segment(s.ptr[i], s.ptr[i + 1] - s.ptr[i]) += s.Zi(i) * (root * u);
    }
    Rows rows;
    for (int j = 0; j < s.layout.p1 - 1; ++j) rows.X.push_back({s.X.data() + j, s.layout.p1 - 1});
    for (int k = 0; k < s.layout.q; ++k) rows.Z.push_back({s.Z.data() + k, s.layout.q});
    rows.y = {s.y.data(), 1};
    rows.beta = s.beta.data();
    rows.ptr = s.ptr.data();
    rows.n_clusters = s.m();
    Interrupt interrupt;
    s.sums = compress(s.layout, rows, s.data.get(), 1, interrupt);
}

// The profiled log-likelihood by dense algebra.
double dense_loglik(const Sample& s, const Problem& problem, const RowMatrix& D) {
    const int p = problem.p();
    Matrix gram = Matrix::Zero(p + 1, p + 1);
    double logdet = 0;
    for (Index i = 0; i < s.m(); ++i) {
        const Matrix Z = s.Zi(i), A = s.A(i);
        const Matrix V = Matrix::Identity(Z.rows(), Z.rows()) + Z * D * Z.transpose();
        logdet += std::log(V.determinant());
        gram += A.transpose() * V.inverse() * A;
    }
    const Matrix S = gram.topLeftCorner(p, p);
    const Eigen::VectorXd g = gram.col(p).head(p);
    const double df = problem.df(), sigma2 = (gram(p, p) - g.dot(S.inverse() * g)) / df;
    const double log_S = problem.reml ? std::log(S.determinant()) : 0.0;
    return problem.constant - 0.5 * (df * (std::log(2 * std::numbers::pi * sigma2) + 1) + logdet + log_S);
}

Optimum fit(const Sample& s, const Problem& problem, const RandomCovariance& covariance,
            const SearchOptions& options = {}, int n_threads = 1) {
    Interrupt interrupt;
    return maximise(s.blocks, s.sums.perp.data(), problem, covariance, options, n_threads, interrupt);
}

// No change of a single root parameter, however small, gains anything.
void check_maximum(const Sample& s, const Problem& problem, const RandomCovariance& covariance,
                   const Optimum& found) {
    CHECK(close(found.loglik, dense_loglik(s, problem, found.D), 1e-11));
    for (int a = 0; a < covariance.n_params(); ++a)
        for (const double change : {1e-3, -1e-3, 0.05, -0.05, 0.5, -0.5}) {
            Vector phi = found.phi;
            phi[a] += change;
            RowMatrix Lambda;
            covariance.Lambda(phi, Lambda);
            CHECK(dense_loglik(s, problem, Lambda * Lambda.transpose()) < found.loglik + 1e-9);
        }
}

const std::vector<int> sizes{4, 2, 5, 8, 3, 3, 7, 9, 2, 6, 4, 5, 5, 3, 6, 4, 7, 2, 3, 8, 4, 4, 5, 6};

void test_structures() {
    using S = Structure;
    const std::vector<std::vector<RandomTerm>> models{
        {{S::unstructured, 1}},
        {{S::unstructured, 2}},
        {{S::unstructured, 3}},
        {{S::diagonal, 2}},
        {{S::identity, 3}},
        {{S::compound_symmetry, 3}},
        {{S::unstructured, 2}, {S::diagonal, 1}},
        {{S::identity, 1}, {S::compound_symmetry, 2}},
    };
    for (const auto& terms : models)
        for (const int p : {0, 1, 3})
            for (const double effects : {0.0, 1.0})
                for (const bool reml : {true, false}) {
                    const RandomCovariance covariance(terms);
                    const int q = covariance.q();
                    Sample s(sizes, q, p, 5 + static_cast<unsigned>(q));
                    Matrix root = effects * Matrix::Identity(q, q);
                    if (q > 1) root(1, 0) = 0.4 * effects;
                    add_effects(s, root, 17);
                    const Problem problem = problem_of(s, reml);
                    const Optimum found = fit(s, problem, covariance);
                    CHECK(found.status == Status::converged);
                    CHECK(found.decrement < 1e-8);
                    check_maximum(s, problem, covariance, found);
                    if (found.on_boundary()) CHECK(found.multiplier < 1e-4);
                    CHECK(found.trace.back().phi.size() == covariance.n_params());
                }
}

void test_boundary() {
    // Responses whose cluster means vary less than chance: the variance is zero.
    Sample s(sizes, 1, 1, 3);
    s.X.setOnes();
    for (Index i = 0; i < s.m(); ++i) {
        auto y = s.y.segment(s.ptr[i], s.ptr[i + 1] - s.ptr[i]);
        y.array() -= y.mean();
    }
    add_effects(s, Matrix::Zero(1, 1), 1);
    const RandomCovariance covariance({{Structure::unstructured, 1}});
    const Optimum found = fit(s, problem_of(s, true), covariance);
    CHECK(found.status == Status::converged);
    CHECK(found.on_boundary() && found.multiplier < 0 && found.ranks == std::vector<int>{0});
    CHECK(found.D(0, 0) == 0);
    // From zero, a saddle of the likelihood, the search finds its way up.
    add_effects(s, Matrix::Constant(1, 1, 2.0), 2);
    const double zero = 0.0;
    SearchOptions options;
    options.start = &zero;
    const Optimum inside = fit(s, problem_of(s, true), covariance);
    const Optimum from_zero = fit(s, problem_of(s, true), covariance, options);
    CHECK(inside.status == Status::converged && !inside.on_boundary());
    CHECK(from_zero.status == Status::converged && from_zero.trace[0].step == Step::check);
    CHECK(from_zero.trace[1].step == Step::start && from_zero.trace[1].smallest_eigenvalue < 0);
    CHECK(close(from_zero.D(0, 0), inside.D(0, 0), 1e-6));
}

void test_ends() {
    const RandomCovariance covariance({{Structure::unstructured, 2}});
    Sample s(sizes, 2, 2, 9);
    const Problem problem = problem_of(s, true);
    SearchOptions options;
    options.max_evaluations = 1;
    CHECK(fit(s, problem, covariance, options).status == Status::iteration_limit);
    // One row in each cluster: the variances cannot be told apart.
    const Sample alone(std::vector<int>(40, 1), 1, 1, 3);
    const RandomCovariance intercept({{Structure::unstructured, 1}});
    CHECK(fit(alone, problem_of(alone, true), intercept).status == Status::not_identified);
    // A response of zeros: no likelihood.
    s.y.setZero();
    add_effects(s, Matrix::Zero(2, 2), 1);
    CHECK(fit(s, problem, covariance).status == Status::failed);
}

// Dropped columns of X are as if they were not there.
void test_keep() {
    const Sample s(sizes, 2, 3, 21);
    Problem problem = problem_of(s, true);
    problem.keep = {0, 2};
    const RandomCovariance covariance({{Structure::unstructured, 2}});
    Sample smaller(sizes, 2, 2, 1);
    smaller.X.col(0) = s.X.col(0);
    smaller.X.col(1) = s.X.col(2);
    smaller.Z = s.Z;
    smaller.y = s.y;
    add_effects(smaller, Matrix::Zero(2, 2), 1);
    const Optimum a = fit(s, problem, covariance), b = fit(smaller, problem_of(smaller, true), covariance);
    CHECK(a.beta.size() == 2 && close(a.loglik, b.loglik, 1e-12));
    CHECK((a.beta - b.beta).norm() < 1e-7 && (a.D - b.D).norm() < 1e-6);
}

// Many clusters: the same bits for any number of threads; two searches advanced in turn do not mix.
void test_bits() {
    const RandomCovariance covariance({{Structure::unstructured, 2}});
    Sample s(std::vector<int>(3000, 3), 2, 4, 13);
    add_effects(s, Matrix::Identity(2, 2), 3);
    const Problem problem = problem_of(s, true), ml = problem_of(s, false);
    const Optimum one = fit(s, problem, covariance);
    CHECK(one.status == Status::converged);
    for (const int n_threads : {2, 5}) {
        const Optimum other = fit(s, problem, covariance, {}, n_threads);
        CHECK(other.loglik == one.loglik && other.phi == one.phi && other.beta == one.beta);
        CHECK(other.trace.size() == one.trace.size());
    }
    std::vector<Search> searches;
    searches.emplace_back(problem, covariance, SearchOptions{});
    searches.emplace_back(ml, covariance, SearchOptions{});
    Interrupt interrupt;
    while (!(searches[0].done() && searches[1].done()))
        for (Search& search : searches)
            if (!search.done())
                search.tell(evaluate_moments(s.blocks, search.Lambda(), s.sums.perp.data(), search.with_kr(),
                                             1, interrupt));
    CHECK(searches[0].optimum().phi == one.phi);
    CHECK(searches[1].optimum().phi == fit(s, ml, covariance).phi);
}

}  // namespace

TEST(search) {
    test_structures();
    test_boundary();
    test_ends();
    test_keep();
    test_bits();
    std::puts("search: ok");
}

}  // namespace lmmfast::testing::test_search
