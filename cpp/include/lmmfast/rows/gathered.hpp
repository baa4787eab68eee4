// Rows of a small data set in the order of their clusters, a contiguous column of doubles each.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "lmmfast/rows/rows.hpp"

namespace lmmfast {

// Rows as the user holds them. Cluster i owns rows order[ptr[i]] … order[ptr[i + 1] - 1], or the
// contiguous rows themselves where order is null.
struct DataView {
    std::vector<Column> X;  // p columns
    std::vector<Column> Z;  // q columns, those of all terms
    Column y;
    const Column* weights = nullptr;      // null: all one
    const Column* offset = nullptr;       // null: zero
    const std::int64_t* ptr = nullptr;    // (n_clusters + 1,)
    const std::int64_t* order = nullptr;  // (n_rows,) or null
    Index n_clusters = 0;

    Index n_rows() const { return n_clusters == 0 ? 0 : ptr[n_clusters] - ptr[0]; }
};

// The same rows copied; the response less its offset. Storage is kept from one use to the next.
struct Gathered {
    Eigen::MatrixXd X, Z;        // (n, p), (n, q)
    Eigen::VectorXd y, weights;  // (n,); no weights: size 0

    Index n() const { return y.size(); }
    bool weighted() const { return weights.size() > 0; }

    void gather(const DataView& data) {
        const Index n = data.n_rows();
        X.resize(n, static_cast<Index>(data.X.size()));
        Z.resize(n, static_cast<Index>(data.Z.size()));
        y.resize(n);
        weights.resize(data.weights ? n : 0);
        for (Index j = 0; j < X.cols(); ++j) read(data, data.X[static_cast<std::size_t>(j)], X.col(j).data());
        for (Index k = 0; k < Z.cols(); ++k) read(data, data.Z[static_cast<std::size_t>(k)], Z.col(k).data());
        read(data, data.y, y.data());
        if (data.weights) read(data, *data.weights, weights.data());
        if (data.offset) {
            offset_.resize(n);
            read(data, *data.offset, offset_.data());
            y -= offset_;
        }
    }

  private:
    static void read(const DataView& data, const Column& from, double* to) {
        from.read(data.ptr[0], data.order, static_cast<int>(data.n_rows()), to);
    }

    Eigen::VectorXd offset_;
};

}  // namespace lmmfast
