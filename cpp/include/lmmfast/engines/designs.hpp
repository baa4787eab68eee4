// Clusters of one design: those whose R_i are the same to the last bit, as in balanced trials, where all
// clusters are observed at the same times, or with a random intercept alone, where R_i says n_i.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "lmmfast/rows/clusters.hpp"

namespace lmmfast {

// Which clusters have which design; designs are numbered in the order of their first clusters.
struct Designs {
    std::vector<std::int32_t> of;  // (m,)
    std::vector<Index> counts;     // (n_designs,)
};

namespace detail {

inline const double* design_of(const ClusterBlocks& clusters, Index i) {
    return clusters.block(i / lanes) + i % lanes;
}
inline std::uint64_t bits(double x) {
    std::uint64_t out;
    std::memcpy(&out, &x, sizeof out);
    return out;
}
inline bool same_design(const ClusterBlocks& clusters, Index i, Index j) {
    const double *a = design_of(clusters, i), *b = design_of(clusters, j);
    for (int f = 0; f < n_pairs(clusters.layout.q); ++f)
        if (bits(a[f * lanes]) != bits(b[f * lanes])) return false;
    return true;
}

// Hash table of designs, each known by one of its clusters.
class DesignTable {
  public:
    explicit DesignTable(const ClusterBlocks& clusters)
        : clusters_(clusters), n_fields_(n_pairs(clusters.layout.q)), slots_(64, -1) {}

    std::size_t size() const { return first_.size(); }

    // The number of cluster i's design, which may be a new one.
    std::int32_t find(Index i) {
        if (2 * (first_.size() + 1) > slots_.size()) grow();
        std::size_t slot = start(i);
        for (; slots_[slot] >= 0; slot = next(slot))
            if (same(first_[slots_[slot]], i)) return slots_[slot];
        first_.push_back(i);
        return slots_[slot] = static_cast<std::int32_t>(first_.size() - 1);
    }
    bool same(Index i, Index j) const { return same_design(clusters_, i, j); }
    // Whether all eight of a block are of cluster i's design.
    bool same_block(Index i, Index block) const {
        const double *a = R(i), *b = clusters_.block(block);
        std::uint64_t difference = 0;
        for (int f = 0; f < n_fields_; ++f)
            for (int lane = 0; lane < lanes; ++lane)
                difference |= bits(a[f * lanes]) ^ bits(b[f * lanes + lane]);
        return difference == 0;
    }

  private:
    const double* R(Index i) const { return design_of(clusters_, i); }
    std::size_t next(std::size_t slot) const { return (slot + 1) & (slots_.size() - 1); }
    std::size_t start(Index i) const {
        std::uint64_t hash = 0;
        for (int f = 0; f < n_fields_; ++f) {
            hash = (hash ^ bits(R(i)[f * lanes])) * 0x9e3779b97f4a7c15u;
            hash ^= hash >> 29;
        }
        return static_cast<std::size_t>(hash) & (slots_.size() - 1);
    }
    void grow() {
        slots_.assign(2 * slots_.size(), -1);
        for (std::size_t k = 0; k < first_.size(); ++k) {
            std::size_t slot = start(first_[k]);
            while (slots_[slot] >= 0) slot = next(slot);
            slots_[slot] = static_cast<std::int32_t>(k);
        }
    }

    ClusterBlocks clusters_;
    int n_fields_;
    std::vector<std::int32_t> slots_;  // a power of two of them; -1: free
    std::vector<Index> first_;         // the cluster that a design is known by
};

// Whether a few clusters, spread evenly, meet each other's designs so often that it pays to look at all.
// A sample of s out of C equally frequent designs has some s^2 / 2C repetitions.
inline bool designs_repeat(const ClusterBlocks& clusters, Index m) {
    const Index sample = std::clamp<Index>(m / 32, 64, 1024), few = sample / 64;
    DesignTable table(clusters);
    for (Index k = 0; k < sample; ++k) table.find(k * m / sample);
    return sample - static_cast<Index>(table.size()) > few;
}

}  // namespace detail

// Whether most clusters of a sample are of the same design as the next one.
inline bool neighbours_are_alike(const ClusterBlocks& clusters, Index m) {
    const Index sample = std::min<Index>(m - 1, 256);
    Index alike = 0;
    for (Index k = 0; k < sample; ++k) {
        const Index i = k * (m - 1) / sample;
        alike += detail::same_design(clusters, i, i + 1);
    }
    return 2 * alike > sample;
}

// The designs of m clusters; nothing where they hardly repeat or are more than `most`.
inline std::optional<Designs> find_designs(const ClusterBlocks& clusters, Index m, Index most) {
    if (!detail::designs_repeat(clusters, m)) return std::nullopt;
    Designs out;
    out.of.resize(static_cast<std::size_t>(m));
    detail::DesignTable table(clusters);
    std::int32_t design = -1;
    const auto add = [&](Index i, Index n) {
        out.counts[design] += n;
        std::fill_n(out.of.begin() + i, n, design);
    };
    for (Index i = 0; i < m;) {
        // neighbours are often alike: they need no table
        if (i > 0 && i % lanes == 0 && i + lanes <= m && table.same_block(i - 1, i / lanes)) {
            add(i, lanes);
            i += lanes;
            continue;
        }
        if (i == 0 || !table.same(i - 1, i)) design = table.find(i);
        if (static_cast<Index>(table.size()) > most) return std::nullopt;
        out.counts.resize(table.size());
        add(i++, 1);
    }
    return out;
}

}  // namespace lmmfast
