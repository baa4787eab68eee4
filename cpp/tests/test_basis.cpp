// The working basis is exact algebra, its columns are well conditioned, and the way back is right.
#include <numeric>

#include "check.hpp"
#include "lmmfast/fit/checks.hpp"
#include "lmmfast/rows/choose_basis.hpp"

namespace lmmfast::testing::test_basis {

namespace {

// Columns of a data set, with the pointers that the core takes.
struct Data {
    Eigen::MatrixXd X, Z;
    Eigen::VectorXd y, weights, offset;
    std::vector<std::int64_t> ptr, order;
    Column weight_column, offset_column;

    DataView view() {
        DataView out;
        for (Index j = 0; j < X.cols(); ++j) out.X.push_back({X.col(j).data(), 1});
        for (Index k = 0; k < Z.cols(); ++k) out.Z.push_back({Z.col(k).data(), 1});
        out.y = {y.data(), 1};
        weight_column = {weights.data(), 1};
        offset_column = {offset.data(), 1};
        if (weights.size()) out.weights = &weight_column;
        if (offset.size()) out.offset = &offset_column;
        out.ptr = ptr.data();
        if (!order.empty()) out.order = order.data();
        out.n_clusters = static_cast<Index>(ptr.size()) - 1;
        return out;
    }
};

Eigen::VectorXd random_column(Index n, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    return Eigen::VectorXd::NullaryExpr(n, [&] { return normal(generator); });
}

// Twelve clusters of five rows: X = 1, a year, its square, a huge column; Z = 3, the year.
Data years() {
    const Index m = 12, n_i = 5, n = m * n_i;
    Data d;
    d.X.resize(n, 4);
    d.X.col(0).setOnes();
    for (Index i = 0; i < n; ++i) d.X(i, 1) = 2000.0 + static_cast<double>(i % 17);
    d.X.col(2) = d.X.col(1).array().square();
    d.X.col(3) = 1e6 * random_column(n, 1);
    d.Z.resize(n, 2);
    d.Z.col(0).setConstant(3.0);
    d.Z.col(1) = d.X.col(1);
    d.y = (5.0 + 0.01 * d.X.col(1).array()).matrix() + 1e-3 * random_column(n, 2);
    for (Index i = 0; i <= m; ++i) d.ptr.push_back(i * n_i);
    return d;
}

// X, Z and the response of the user from those of the basis.
void check_way_back(Data& d, const std::vector<RandomTerm>& terms, int known_unit = -1) {
    Gathered rows;
    rows.gather(d.view());
    WorkingRows working;
    const Basis basis = choose_basis(rows, terms, known_unit, {}, working);
    std::vector<int> keep(static_cast<std::size_t>(d.X.cols()));
    std::iota(keep.begin(), keep.end(), 0);
    const Eigen::MatrixXd A = basis.x_map(keep), A_z = basis.z_map();
    const auto relative = [](const auto& a, const auto& b) {
        return (a - b).cwiseAbs().maxCoeff() / b.cwiseAbs().maxCoeff();
    };
    for (Index j = 0; j < d.X.cols(); ++j) CHECK(relative((rows.X * A).col(j), working.X.col(j)) < 1e-7);
    for (Index k = 0; k < d.Z.cols(); ++k) CHECK(relative((rows.Z * A_z).col(k), working.Z.col(k)) < 1e-9);
    CHECK(close(basis.x_log_det(keep), std::log(std::abs(A.determinant())), 1e-8));
    Eigen::VectorXd y = basis.y_scale * (working.X * basis.beta + working.r);
    y.array() += basis.y_shift;
    CHECK(relative(y, rows.y) < 1e-12);
    if (basis.unit.size()) CHECK(((rows.X * basis.unit).array() - 1.0).abs().maxCoeff() < 1e-12);
    CHECK((working.X.transpose() * working.r).cwiseAbs().maxCoeff() <
          1e-9 * std::sqrt(working.X.squaredNorm() * working.r.squaredNorm()));
    const double spread = std::sqrt(working.r.squaredNorm() / static_cast<double>(rows.n()));
    CHECK(spread > 0.7 && spread < 1.42);
}

void columns_are_well_conditioned() {
    Data d = years();
    const std::vector<RandomTerm> terms{{Structure::unstructured, 2}};
    check_way_back(d, terms);
    check_way_back(d, terms, 0);
    Gathered rows;
    rows.gather(d.view());
    WorkingRows working;
    const Basis basis = choose_basis(rows, terms, -1, {}, working);
    CHECK(basis.unit.size() == 4 && basis.unit[0] == 1.0 && basis.unit[1] == 0.0);
    CHECK(basis.x_shift[0] == 0.0 && close(basis.x_shift[1], rows.X.col(1).mean(), 1e-14));
    CHECK(basis.x_mix.rows() == 4);
    CHECK(basis.z_units == std::vector<int>({-1, 0}) && basis.z_scale[0] == 3.0);
    const Eigen::MatrixXd gram = working.X.transpose() * working.X;
    const Eigen::VectorXd size = gram.diagonal().cwiseSqrt();
    const Eigen::MatrixXd correlation = gram.cwiseQuotient(size * size.transpose());
    CHECK(Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(correlation).eigenvalues()[0] > 0.3);
}

void structures_limit_the_basis_of_Z() {
    Data d = years();
    const auto basis_of = [&](Structure structure) {
        Gathered rows;
        rows.gather(d.view());
        WorkingRows working;
        return choose_basis(rows, {{structure, 2}}, -1, {}, working);
    };
    for (const auto structure : {Structure::diagonal, Structure::identity, Structure::compound_symmetry}) {
        check_way_back(d, {{structure, 2}});
        const Basis basis = basis_of(structure);
        CHECK(basis.z_shift.isZero() && basis.z_mix.size() == 0);
        CHECK((basis.z_scale[0] == basis.z_scale[1]) == (structure != Structure::diagonal));
    }
    check_way_back(d, {{Structure::unstructured, 1}, {Structure::diagonal, 1}});
}

void indicators_make_a_constant() {
    Data d = years();
    for (Index i = 0; i < d.X.rows(); ++i) d.X(i, 0) = i % 3 == 0;
    d.X.col(3) = 1.0 - d.X.col(0).array();
    const std::vector<RandomTerm> terms{{Structure::unstructured, 2}};
    check_way_back(d, terms);
    d.X.col(3).array() += 1e-6;  // no longer
    Gathered rows;
    rows.gather(d.view());
    WorkingRows working;
    CHECK(choose_basis(rows, terms, -1, {}, working).unit.size() == 0);
    check_way_back(d, terms);
}

void rows_are_gathered() {
    Data d = years();
    const Index n = d.y.size();
    d.weights = random_column(n, 3).array().exp();
    d.offset = random_column(n, 4);
    d.order.resize(static_cast<std::size_t>(n));
    std::iota(d.order.begin(), d.order.end(), 0);
    std::shuffle(d.order.begin(), d.order.end(), std::mt19937(5));
    Gathered rows;
    rows.gather(d.view());
    for (Index k = 0; k < n; ++k) {
        const Index row = d.order[static_cast<std::size_t>(k)];
        CHECK(rows.X(k, 3) == d.X(row, 3) && rows.Z(k, 1) == d.Z(row, 1));
        CHECK(rows.y[k] == d.y[row] - d.offset[row] && rows.weights[k] == d.weights[row]);
    }
    WorkingRows working;
    const Basis basis = choose_basis(rows, {{Structure::unstructured, 2}}, -1, {}, working);
    CHECK(basis.weighted && std::abs(std::log2(rows.weights.mean() / basis.weight_scale)) <= 0.5);
    CHECK((working.weights * basis.weight_scale).isApprox(rows.weights, 1e-15));
}

void dependent_columns_are_found() {
    Data d = years();
    d.X.col(3) = 2.0 * d.X.col(1).array() - 7.0;
    Gathered rows;
    rows.gather(d.view());
    WorkingRows working;
    const Basis basis = choose_basis(rows, {{Structure::unstructured, 2}}, -1, {}, working);
    Eigen::MatrixXd A(rows.n(), 5);
    A << working.X, working.r;
    const Eigen::MatrixXd gram = A.transpose() * A;
    const IndependentColumns independent = independent_columns(gram, basis);
    CHECK(independent.sorted() == std::vector<int>({0, 1, 2}) && basis.beta[3] == 0.0);
    const Regression on_X = regress(gram, independent);
    CHECK(on_X.explained < 1e-12 && close(on_X.residual_sum, working.r.squaredNorm(), 1e-12));
    CHECK(leaves_variation(on_X, rows.n(), basis.y_size));
}

}  // namespace

TEST(basis) {
    columns_are_well_conditioned();
    structures_limit_the_basis_of_Z();
    indicators_make_a_constant();
    rows_are_gathered();
    dependent_columns_are_found();
    std::puts("basis: ok");
}

}  // namespace lmmfast::testing::test_basis
