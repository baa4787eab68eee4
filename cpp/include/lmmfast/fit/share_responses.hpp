// Clusters of one design put together for many responses.
//
// Where R_i and Q_i'X are the same to the last bit for m_c clusters, an orthogonal transformation of these
// clusters among themselves leaves the totals as they are (docs/algorithm.md, eq. 2.16). One that turns
// (1, …, 1) into (sqrt(m_c), 0, …, 0) leaves Q'X in the first of them alone, and QR decomposition leaves
// at most q + 1 rows Q'y that are not zero, whatever the response.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lmmfast/fit/many_responses.hpp"

namespace lmmfast {

namespace detail {

// The clusters of each design, in the order of their first ones.
inline std::vector<std::vector<Index>> clusters_by_design(const ManyResponses& data) {
    const std::size_t bytes = static_cast<std::size_t>(data.design_size()) * sizeof(double);
    std::unordered_map<std::string_view, std::size_t> known;
    std::vector<std::vector<Index>> out;
    for (Index i = 0; i < data.n_clusters; ++i) {
        const auto* design = reinterpret_cast<const char*>(data.design.data() + i * data.design_size());
        const auto [entry, is_new] = known.try_emplace(std::string_view(design, bytes), out.size());
        if (is_new) out.emplace_back();
        out[entry->second].push_back(i);
    }
    return out;
}

// Rows Q_i'y (m, q) of the clusters of one design -> sum / sqrt(m), then the triangle (q, q) of what is
// left beside the mean, by modified Gram-Schmidt. `out` (q + 1, q) row-major.
inline void reduce_rows(Eigen::ArrayXXd& rows, double* out) {
    const Index q = rows.cols();
    const double root = std::sqrt(static_cast<double>(rows.rows()));
    std::fill_n(out, (q + 1) * q, 0.0);
    for (Index a = 0; a < q; ++a) {
        const double mean = rows.col(a).mean();
        out[a] = mean * root;
        rows.col(a) -= mean;
    }
    for (Index k = 0; k < q; ++k) {
        double* to = out + (k + 1) * q;
        to[k] = rows.col(k).matrix().norm();
        if (!(to[k] > 0)) continue;
        rows.col(k) /= to[k];
        for (Index a = k + 1; a < q; ++a) {
            to[a] = (rows.col(k) * rows.col(a)).sum();
            rows.col(a) -= to[a] * rows.col(k);
        }
    }
}

}  // namespace detail

// Does so where at most half of the clusters are left.
inline void put_designs_together(ManyResponses& data, int n_threads, Interrupt& interrupt) {
    const int q = data.layout.q, size = data.design_size(), K = n_pairs(q);
    const auto designs = detail::clusters_by_design(data);
    const auto left_of = [&](const std::vector<Index>& members) {
        return std::min<Index>(static_cast<Index>(members.size()), q + 1);
    };
    Index left = 0;
    for (const auto& members : designs) left += left_of(members);
    if (2 * left > data.n_clusters) return;

    std::vector<double> design;
    for (const auto& members : designs) {
        const auto m = static_cast<double>(members.size());
        const bool together = left_of(members) < static_cast<Index>(members.size());
        for (Index c = 0; c < left_of(members); ++c) {
            const double* from = data.design.data() + members[static_cast<std::size_t>(c)] * size;
            const double factor = !together ? 1.0 : c == 0 ? std::sqrt(m) : 0.0;
            for (int f = 0; f < size; ++f) design.push_back(from[f] * (f < K ? 1.0 : factor));
            data.counts.push_back(!together ? 1.0 : c == 0 ? m : 0.0);
        }
    }
    std::vector<double> projected(static_cast<std::size_t>(data.n_responses() * left * q));
    parallel_for(data.n_responses(), n_threads, interrupt, [&](Index r) {
        const double* from = data.projected_of(r);
        double* to = projected.data() + r * left * q;
        Eigen::ArrayXXd rows;
        for (const auto& members : designs) {
            const auto m = static_cast<Index>(members.size());
            rows.resize(m, q);
            for (Index i = 0; i < m; ++i)
                for (int a = 0; a < q; ++a) rows(i, a) = from[members[static_cast<std::size_t>(i)] * q + a];
            if (left_of(members) < m)
                detail::reduce_rows(rows, to);
            else
                Eigen::Map<Eigen::ArrayXXd>(to, q, m) = rows.transpose();
            to += left_of(members) * q;
        }
    });
    data.n_clusters = left;
    data.design = std::move(design);
    data.projected = std::move(projected);
    data.elsewhere = nullptr;
    data.z_in_x.clear();
}

}  // namespace lmmfast
