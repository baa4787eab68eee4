// Tests that register themselves, checks that name their line, and random clusters with their dense
// algebra.
#pragma once

#include <Eigen/Dense>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "lmmfast/compress/compress.hpp"

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                       \
        }                                                                       \
    } while (false)

#define TEST(name)                                                                            \
    void test_##name();                                                                       \
    const bool name##_is_registered = (registered().emplace_back(#name, &test_##name), true); \
    void test_##name()

namespace lmmfast::testing {

// The tests of a program by name.
inline std::vector<std::pair<const char*, void (*)()>>& registered() {
    static std::vector<std::pair<const char*, void (*)()>> tests;
    return tests;
}

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline bool close(double a, double b, double tolerance = 1e-9) {
    return std::abs(a - b) <= tolerance * (1.0 + std::abs(a) + std::abs(b));
}

struct FreeAligned {
    void operator()(double* p) const { std::free(p); }
};

// Rows of clusters of the given sizes, compressed.
struct Sample {
    Matrix X, Z;
    Eigen::VectorXd y;
    std::vector<double> beta;
    std::vector<std::int64_t> ptr{0};
    Layout layout;
    std::unique_ptr<double, FreeAligned> data;
    CompressedSums sums;
    ClusterBlocks blocks;

    // z_in_x: columns of X that are columns of Z.
    Sample(const std::vector<int>& sizes, int q, int p, unsigned seed, int n_threads = 1,
           const std::vector<int>& z_in_x = {})
        : layout{q, p + 1} {
        for (const int n_i : sizes) ptr.push_back(ptr.back() + n_i);
        std::mt19937 generator(seed);
        std::normal_distribution<double> normal;
        const auto n = ptr.back();
        X = Matrix::NullaryExpr(n, p, [&] { return normal(generator); });
        Z = Matrix::NullaryExpr(n, q, [&] { return normal(generator); });
        Z.col(0).setOnes();
        for (std::size_t k = 0; k < z_in_x.size(); ++k) X.col(z_in_x[k]) = Z.col(static_cast<Index>(k));
        y = Eigen::VectorXd::NullaryExpr(n, [&] { return normal(generator); });
        beta.assign(static_cast<std::size_t>(p), 0.0);
        const Index n_blocks = (static_cast<Index>(sizes.size()) + lanes - 1) / lanes;
        const auto bytes = static_cast<std::size_t>(n_blocks * layout.n_fields() * lanes) * sizeof(double);
        data.reset(static_cast<double*>(std::aligned_alloc(64, bytes)));
        Rows rows;
        for (int j = 0; j < p; ++j) rows.X.push_back({X.data() + j, p});
        for (int k = 0; k < q; ++k) rows.Z.push_back({Z.data() + k, q});
        rows.y = {y.data(), 1};
        rows.beta = beta.data();
        rows.ptr = ptr.data();
        rows.n_clusters = static_cast<Index>(sizes.size());
        Interrupt interrupt;
        sums = compress(layout, rows, data.get(), n_threads, interrupt);
        blocks = {layout, n_blocks, data.get()};
    }

    Index m() const { return static_cast<Index>(ptr.size()) - 1; }
    Matrix A(Index i) const {
        const auto begin = ptr[i], n_i = ptr[i + 1] - begin;
        Matrix out(n_i, layout.p1);
        out << X.middleRows(begin, n_i), y.segment(begin, n_i);
        return out;
    }
    Matrix Zi(Index i) const { return Z.middleRows(ptr[i], ptr[i + 1] - ptr[i]); }
    double field(Index i, int f) const { return blocks.block(i / lanes)[f * lanes + i % lanes]; }
};

}  // namespace lmmfast::testing
