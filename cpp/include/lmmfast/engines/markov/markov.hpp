// Markov engine: AR(1) and Ornstein-Uhlenbeck residuals with nugget, variance model and weights, beside
// random effects; O(n_i) a cluster, information exact (docs/markov.md).
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "lmmfast/base/parallel.hpp"
#include "lmmfast/engines/markov/random.hpp"

namespace lmmfast {

namespace detail {

// Sums over clusters in one thread's own memory, linear in the longest cluster.
class MarkovWorker {
  public:
    MarkovWorker(const MarkovRows& rows, const MarkovPoint& point, const MarkovLayout& layout)
        : rows_(rows),
          layout_(layout),
          longest_(rows.longest(0, rows.m)),
          filter_(rows, point, longest_, true),
          information_(layout.K_R),
          whitened_(layout.q, layout.p1, longest_),
          products_(layout.q, layout.p1, layout.K_R, layout.with_kr),
          sums_(layout, point.Lambda),
          n_kept_(layout.with_kr ? whitened_.n_panels() : (layout.q + lanes - 1) / lanes),
          U_(static_cast<std::size_t>((Index{layout.K_R} * n_kept_ + 1) * longest_ * lanes)),
          panel_products_(static_cast<std::size_t>(lanes * lanes)) {}

    // Totals of the clusters begin … end - 1 are added to `out`. Returns the first cluster of which V is
    // not positive definite, or `end`.
    Index add(Index begin, Index end, Interrupt& interrupt, double* out) {
        constexpr Index rows_between_checks = 4096;
        Index unchecked = 0;
        for (Index i = begin; i < end; ++i) {
            if ((unchecked += rows_.n_i(i)) > rows_between_checks) {
                interrupt.check();
                unchecked = 0;
            }
            if (!filter_.factorise(i)) return i;
            information_.evaluate(filter_);
            whitened_.whiten(rows_, i, filter_);
            multiply();
            if (!sums_.add(filter_.logdet(), information_, whitened_, products_, out)) return i;
        }
        return end;
    }

  private:
    const MarkovRows& rows_;
    MarkovLayout layout_;
    Index longest_;
    MarkovFilter filter_;
    MarkovInformation information_;
    WhitenedRows whitened_;
    MarkovProducts products_;
    MarkovSums sums_;
    int n_kept_;                     // panels of each U_k that are kept for U_k'U_l
    AlignedDoubles U_;               // (K_R, n_kept, longest, 8), and a panel that is not kept
    AlignedDoubles panel_products_;  // (8, 8)

    double* U(int k, int panel) {
        const Index at = panel < n_kept_ ? Index{k} * n_kept_ + panel : Index{layout_.K_R} * n_kept_;
        return U_.data() + at * longest_ * lanes;
    }

    void multiply() {
        for (int t = 0; t < whitened_.n_panels(); ++t)
            for (int s = 0; s <= t; ++s)
                write_A_perp(s, t, times(whitened_.panel(s), whitened_.columns_of(s), whitened_.panel(t)));
        for (int k = 0; k < layout_.K_R; ++k) multiply_by_slope(k);
        for (int k = 0; k < layout_.K_R; ++k)
            for (int l = 0; l <= k; ++l) multiply_slopes(k, l);
    }

    const double* times(const double* left, int n_left, const double* right) {
        multiply_panels(left, n_left, right, filter_.n_i(), panel_products_.data());
        return panel_products_.data();
    }

    // Calls each(row, column, value) for the entries of a product of panels s and t.
    template <class Each>
    void for_entries(int s, int t, const double* product, const Each& each) const {
        for (int a = 0; a < whitened_.columns_of(s); ++a)
            for (int b = 0; b < whitened_.columns_of(t); ++b)
                each(s * lanes + a, t * lanes + b, product[a * lanes + b]);
    }

    void write_A_perp(int s, int t, const double* product) {
        const int q = layout_.q;
        for_entries(s, t, product, [&](int a, int b, double value) {
            if (a >= q && b >= q) products_.A_perp(a - q, b - q) = products_.A_perp(b - q, a - q) = value;
        });
    }

    // U_k, and Y'U_k = Y'N_k Y + (Y'N_k Y)'.
    void multiply_by_slope(int k) {
        RowMatrix& YU = products_.YU[static_cast<std::size_t>(k)];
        YU.setZero();
        const MarkovStep* steps = filter_.steps();
        const MarkovSlope* slopes = filter_.slopes(k);
        for (int t = 0; t < whitened_.n_panels(); ++t) {
            const double* Y = whitened_.panel(t);
            apply_N(steps, slopes, filter_.n_i(), Y, U(k, t));
            for (int s = 0; s < whitened_.n_panels(); ++s)
                for_entries(s, t, times(whitened_.panel(s), whitened_.columns_of(s), U(k, t)),
                            [&](int a, int b, double value) {
                                YU(a, b) += value;
                                YU(b, a) += value;
                            });
            if (t < n_kept_) add_N_transposed(steps, slopes, filter_.n_i(), Y, U(k, t));
        }
    }

    void multiply_slopes(int k, int l) {
        RowMatrix& UU = products_.UU[MarkovProducts::pair(k, l)];
        const auto n_columns = static_cast<int>(UU.rows());
        for (int s = 0; s < n_kept_; ++s)
            for (int t = 0; t < n_kept_; ++t)
                for_entries(s, t, times(U(k, s), std::min(lanes, n_columns - s * lanes), U(l, t)),
                            [&](int a, int b, double value) {
                                if (a < n_columns && b < n_columns) UU(a, b) = value;
                            });
    }
};

// First clusters of the parts in which totals are summed, and m: parts of about equally many rows, their
// number fixed by the data.
inline std::vector<Index> markov_parts(const MarkovRows& rows, Index doubles_each) {
    constexpr Index min_rows = 2048, max_parts = 64, max_doubles = Index{1} << 22;
    const Index n = rows.ptr[rows.m], by_memory = std::max<Index>(2, max_doubles / doubles_each);
    const Index most = std::min({max_parts, by_memory, rows.m});
    const Index n_parts = std::max<Index>(1, std::min(n / min_rows, most));
    std::vector<Index> first{0};
    for (Index k = 1; k < n_parts; ++k)
        first.push_back(std::lower_bound(rows.ptr, rows.ptr + rows.m, k * n / n_parts) - rows.ptr);
    first.push_back(rows.m);
    return first;
}

}  // namespace detail

struct MarkovTotals {
    std::vector<double> values;  // MarkovLayout
    Index failed = -1;           // the first cluster of which V is not positive definite or not finite
};

inline MarkovTotals markov_totals(const MarkovRows& rows, const MarkovPoint& point, bool with_kr,
                                  int n_threads, Interrupt& interrupt) {
    const MarkovLayout layout{rows.q, rows.p1, n_residual_params(rows, point), with_kr};
    const std::vector<Index> first = detail::markov_parts(rows, layout.size());
    const auto n_parts = static_cast<Index>(first.size()) - 1;
    std::vector<double> partial(static_cast<std::size_t>(n_parts * layout.size()));
    std::vector<Index> stopped(static_cast<std::size_t>(n_parts));
    std::atomic<Index> next{0};
    parallel_for(std::min<Index>(n_threads, n_parts), n_threads, interrupt, [&](Index) {
        detail::MarkovWorker worker(rows, point, layout);
        for (Index k; (k = next.fetch_add(1)) < n_parts;) {
            const auto at = static_cast<std::size_t>(k);
            stopped[at] = worker.add(first[at], first[at + 1], interrupt, partial.data() + k * layout.size());
        }
    });
    MarkovTotals totals;
    for (std::size_t k = 0; k < stopped.size() && totals.failed < 0; ++k)
        if (stopped[k] < first[k + 1]) totals.failed = stopped[k];
    for (Index k = 1; k < n_parts; ++k)
        for (Index e = 0; e < layout.size(); ++e)
            partial[static_cast<std::size_t>(e)] += partial[static_cast<std::size_t>(k * layout.size() + e)];
    partial.resize(static_cast<std::size_t>(layout.size()));
    totals.values = std::move(partial);
    return totals;
}

}  // namespace lmmfast
