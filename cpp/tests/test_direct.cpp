// Rows laid side by side straight from the user's memory give what staging them gives, wherever the columns
// lie, and whatever turns out not to be as it was taken to be.
#include <numeric>

#include "check.hpp"
#include "lmmfast/compress/direct_rows.hpp"

namespace lmmfast::testing::test_direct {

namespace {

constexpr double one = 1.0;

// Clusters of one to eight rows, some of up to 32, and one that is longer than the tile.
std::vector<std::int64_t> some_clusters(Index m) {
    std::mt19937 generator(3);
    std::vector<std::int64_t> ptr{0};
    for (Index i = 0; i < m; ++i) {
        const auto size = i == m / 3 ? 100 : i % 97 < 5 ? 9 + generator() % 24 : 1 + generator() % 8;
        ptr.push_back(ptr.back() + size);
    }
    return ptr;
}

struct Problem {
    Index n, p, q;
    Matrix X, Z;  // Z's columns are X's first, in memory of their own
    std::vector<double> columns, y, beta;
    std::vector<std::int64_t> ptr, order;
    Rows rows;

    Problem(int p_, int q_) : p(p_), q(q_), ptr(some_clusters(3000)) {
        n = ptr.back();
        std::mt19937 generator(5);
        std::normal_distribution<double> normal(2.0, 1.0);
        const auto draw = [&] { return normal(generator); };
        X = Matrix::NullaryExpr(n, p + 1, draw);  // the last column is for a response within the table
        X.col(0).setOnes();
        Z = X.leftCols(q);
        y.resize(static_cast<std::size_t>(n));
        for (double& value : y) value = draw();
        for (Index j = 0; j < p; ++j) beta.push_back(0.3 * static_cast<double>(j) - 0.5);
        order.resize(static_cast<std::size_t>(n));
        std::iota(order.begin(), order.end(), 0);
        for (int j = 0; j < p; ++j) rows.X.push_back(basis(j, {X.data() + j, X.cols()}));
        for (int k = 0; k < q; ++k) rows.Z.push_back(basis(k, {Z.data() + k, Z.cols()}));
        rows.y = {y.data(), 1, 1.5, 0.5};
        rows.beta = beta.data();
        rows.ptr = ptr.data();
        rows.n_clusters = static_cast<Index>(ptr.size()) - 1;
    }
    // Column 0 is constant, the others are centred and scaled.
    static Column basis(int j, Column c) {
        if (j == 0) {
            c.expected = 1.0;
            return c;
        }
        c.shift = 2.0 + 0.1 * j;
        c.scale_inv = 1.0 / (1.0 + j);
        return c;
    }
    // Each column in one piece
    void by_columns() {
        columns.resize(static_cast<std::size_t>(n * p));
        for (int j = 0; j < p; ++j) {
            double* column = columns.data() + j * n;
            Eigen::Map<Eigen::VectorXd>(column, n) = X.col(j);
            rows.X[j] = basis(j, {column, 1});
            if (j < q) rows.Z[j] = rows.X[j];
        }
    }
};

struct Compressed {
    std::unique_ptr<double, FreeAligned> data;
    Index size;
    CompressedSums sums;

    explicit Compressed(const Problem& problem, const Rows& rows) {
        const Layout layout{static_cast<int>(problem.q), static_cast<int>(problem.p) + 1};
        size = (rows.n_clusters + lanes - 1) / lanes * layout.n_fields() * lanes;
        data.reset(static_cast<double*>(std::aligned_alloc(64, static_cast<std::size_t>(size) * 8)));
        Interrupt interrupt;
        sums = compress(layout, rows, data.get(), 2, interrupt);
    }
};

// Whether the rows of a block need no staging where the first columns of X are those of Z
bool is_possible(const Problem& problem) {
    const int q = static_cast<int>(problem.q), p = static_cast<int>(problem.p);
    std::vector<int> active, same_as(static_cast<std::size_t>(q + p + 1), -1);
    for (int c = 0; c < q + p + 1; ++c) {
        if (c >= q && c < 2 * q) same_as[c] = c - q;
        if (same_as[c] < 0) active.push_back(c);
    }
    detail::DirectRows direct(problem.rows, q + p + 1);
    direct.plan(active, same_as);
    if (!direct.possible()) return false;
    detail::Tile tile(q + p + 2);
    constexpr Index first = 8;
    const std::int64_t* ptr = &problem.ptr[first];
    const auto segments = detail::Tile::Segments::behind_one_another(ptr, ptr[0]);
    tile.begin(segments);
    return direct.load(ptr[0], ptr[lanes], segments, tile);
}

void check(const Problem& problem, bool z_in_x = true, bool as_expected = true) {
    Rows rows = problem.rows;
    const Compressed direct(problem, rows);
    rows.order = problem.order.data();  // rows in an order of their own are staged
    const Compressed staged(problem, rows);
    CHECK(direct.sums.as_expected == as_expected && staged.sums.as_expected == as_expected);
    if (!as_expected) return;  // and nothing else is used
    CHECK(direct.sums.z_in_x.empty() != z_in_x);
    CHECK(direct.sums.z_in_x == staged.sums.z_in_x && direct.sums.rank_Z == staged.sums.rank_Z);
    for (Index e = 0; e < direct.size; ++e) CHECK(close(direct.data.get()[e], staged.data.get()[e], 1e-11));
    for (std::size_t e = 0; e < direct.sums.perp.size(); ++e) {
        CHECK(close(direct.sums.perp[e], staged.sums.perp[e], 1e-11));
        CHECK(close(direct.sums.gram[e], staged.sums.gram[e], 1e-11));
    }
}

void check_possible(const Problem& problem) {
    CHECK(is_possible(problem));
    check(problem);
}

}  // namespace

TEST(direct) {
    for (const int q : {1, 2, 3})
        for (int p = q; p <= 9; ++p) {
            Problem problem(p, q);
            check_possible(problem);  // Z apart from X
            for (int k = 0; k < q; ++k) problem.rows.Z[k] = problem.rows.X[k];
            check_possible(problem);  // Z a slice of X
            problem.rows.y = {problem.X.data() + p, problem.X.cols(), 1.5, 0.5};
            check_possible(problem);  // y in the same table
            problem.by_columns();
            check_possible(problem);
            problem.rows.Z[0] = Column(&one, 0);
            check_possible(problem);  // the constant of Z is no column
            problem.rows.X[0] = Column(&one, 0);
            check_possible(problem);  // nor is that of X
            problem.rows.y = Column(&one, 0, 1.5, 0.5);
            check_possible(problem);  // a response that each row of X gives by itself
        }
    // Sums kept as products, of one response and of several side by side.
    Problem wide(14, 2);
    check_possible(wide);
    wide.rows.n_single = 3;
    check_possible(wide);
    // Several columns of X that are one of Z. (Which of them is meant is all the same.)
    Problem twice(5, 2);
    twice.X.col(3) = twice.X.col(1);
    twice.rows.X[3].shift = twice.rows.X[1].shift;
    twice.rows.X[3].scale_inv = twice.rows.X[1].scale_inv;
    check_possible(twice);
    // x1 is z1 in long clusters that come first; then it is z0 as well, and in one row not z1.
    Problem later(2, 2);
    constexpr Index n_long = 8, behind = n_long * 100;
    for (std::size_t i = 0; i < later.ptr.size(); ++i) {
        const auto k = static_cast<std::int64_t>(i);
        later.ptr[i] = k <= n_long ? 100 * k : behind + 3 * (k - n_long);
    }
    later.Z.col(0) = Eigen::VectorXd::LinSpaced(later.n, 1.0, 2.0);
    later.Z.col(1) = Eigen::VectorXd::LinSpaced(later.n, 2.0, 5.0);
    later.Z.col(0).tail(later.n - behind) = later.Z.col(1).tail(later.n - behind);
    later.X.leftCols(2) = later.Z;
    later.Z(1250, 1) += 0.5;
    for (int k = 0; k < 2; ++k) {
        later.rows.X[k] = Column(later.X.data() + k, later.X.cols());
        later.rows.Z[k] = Column(later.Z.data() + k, 2);
    }
    later.rows.n_clusters = 208;
    check(later, false);
    // What is not so in one row, among the first that are staged and far behind them.
    for (const Index row : {0, 100, 5000, 9999}) {
        Problem other(4, 2);
        other.Z(row, 1) += 1e-9;
        check(other, false);
        Problem nearly_one(4, 2);
        nearly_one.X(row, 0) = nearly_one.Z(row, 0) = 1.0 + 1e-9;
        check(nearly_one, true, false);
        Problem not_one(4, 2);
        not_one.X(row, 0) += 1.0;
        check(not_one, false, false);
    }
    // Other types, and a constant in the midst of a table, are staged.
    Problem in_the_midst(4, 1);
    in_the_midst.rows.X[1].expected = 2.0;
    in_the_midst.X.col(1).setConstant(2.0);
    CHECK(!is_possible(in_the_midst));
    check(in_the_midst);
    Problem of_floats(4, 1);
    const std::vector<float> floats(static_cast<std::size_t>(of_floats.n), 0.25f);
    of_floats.rows.X[3] = Column(floats.data(), 1, 0.0, 3.0);
    CHECK(!is_possible(of_floats));
    check(of_floats);
    std::puts("direct: ok");
}

}  // namespace lmmfast::testing::test_direct
