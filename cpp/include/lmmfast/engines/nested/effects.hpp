// Predictions of nested random effects and their conditional covariances, from the outermost level inwards.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "lmmfast/base/small_matrix.hpp"
#include "lmmfast/engines/moments/random_effects.hpp"
#include "lmmfast/engines/nested/nested.hpp"

namespace lmmfast {

namespace detail {

// Goes down the tree. What a level inherits from those around it is State; `outer` turns it into that of
// the units inside a unit and writes the unit's own values, `inner` writes those of innermost units.
class NestedDescent {
  public:
    using Map = Eigen::Map<const RowMatrix>;

    NestedDescent(const NestedTree& tree, const ClusterBlocks& clusters, const double* Lambda,
                  const double* root, const NestedRecord& record)
        : tree_(tree), clusters_(clusters), record_(record) {
        for (int l = 0; l < tree.depth(); ++l) {
            Lambda_.push_back(own(l, Lambda));
            root_.push_back(own(l, root));
        }
    }

  protected:
    struct Matrices {
        Map T1, W_ZA, K, B_inv_root;
    };
    RowMatrix own(int level, const double* matrix) const {
        const std::vector<double> block = own_block(tree_.levels[level], matrix, tree_.q());
        const int q = tree_.levels[level].q();
        return Map(block.data(), q, q);
    }
    Matrices of_unit(int level, Index unit) const {
        const int q = tree_.levels[level].q(), P = NestedRecord::n_columns(tree_, level);
        const double* at = record_.of_level[level].data() + unit * NestedRecord::size(tree_, level);
        return {Map(at, q, P), Map(at + q * P, q, P), Map(at + 2 * q * P, q, q),
                Map(at + 2 * q * P + q * q, q, q)};
    }
    // each(factor, part, first unit, number of units) for the packs of innermost units inside `unit`
    template <class Each>
    void innermost(Index unit, const Each& each) const {
        const NestedLevel& around = tree_.levels[tree_.depth() - 2];
        BlockFactor<0, 0> factor(clusters_.layout, Lambda_.back().data());
        LogProduct ignored;
        for (Index i = around.first[unit]; i < around.first[unit + 1]; i += Pack::size) {
            const Index at = i - around.first[unit], block = tree_.first_block[unit] + at / lanes;
            const BlockPart part(clusters_.layout, clusters_.block(block),
                                 static_cast<int>(at % lanes) / Pack::size);
            factor.factorise(part, ignored);
            each(factor, part, i, around.first[unit + 1] - i);
        }
    }

    const NestedTree& tree_;
    ClusterBlocks clusters_;
    const NestedRecord& record_;
    std::vector<RowMatrix> Lambda_, root_;
};

// root u with u = Lambda'Z'V^-1 A c. Inside a unit the vector [T1 c; c] takes the place of c.
class DescendingEffects : NestedDescent {
  public:
    using NestedDescent::NestedDescent;

    // Values of unit `i` of `level` and all units inside it; out[l] is (m_l, q_l).
    void write(int level, Index i, const Vector& c, double* const* out) const {
        const int q = tree_.levels[level].q();
        const Matrices m = of_unit(level, i);
        Eigen::Map<Vector>(out[level] + i * q, q) =
            root_[level] * (Lambda_[level].transpose() * (m.W_ZA * c));
        Vector inside(q + c.size());
        inside << m.T1 * c, c;
        if (level + 2 < tree_.depth()) {
            const std::int64_t* first = tree_.levels[level].first;
            for (Index k = first[i]; k < first[i + 1]; ++k) write(level + 1, k, inside, out);
            return;
        }
        const int q_inner = clusters_.layout.q;
        innermost(i, [&](const auto& factor, const auto& part, Index k, Index n) {
            Pack effects[max_q];
            predict_effects(factor, part, root_.back().data(), inside.data(), effects);
            write_by_cluster(effects, q_inner, n, out[level + 1] + k * q_inner);
        });
    }
};

// Var(root u | y): that given the effects around, and what their covariance Sigma adds. With T = [T1; I]
// the covariance inside a unit is T Sigma T' and K where its own effects stand.
class DescendingCovariance : NestedDescent {
  public:
    using NestedDescent::NestedDescent;

    void write(int level, Index i, const RowMatrix& Sigma, double* const* out) const {
        const Eigen::Index q = tree_.levels[level].q(), o = Sigma.rows();
        const Matrices m = of_unit(level, i);
        const RowMatrix given = m.B_inv_root * root_[level].transpose();
        const RowMatrix passed = root_[level] * Lambda_[level].transpose() * m.W_ZA.leftCols(o);
        Eigen::Map<RowMatrix>(out[level] + i * q * q, q, q) =
            given.transpose() * given + passed * Sigma * passed.transpose();
        RowMatrix inside(q + o, q + o);
        const RowMatrix T1_Sigma = m.T1.leftCols(o) * Sigma;
        inside << T1_Sigma * m.T1.leftCols(o).transpose() + m.K, T1_Sigma, T1_Sigma.transpose(), Sigma;
        if (level + 2 < tree_.depth()) {
            const std::int64_t* first = tree_.levels[level].first;
            for (Index k = first[i]; k < first[i + 1]; ++k) write(level + 1, k, inside, out);
            return;
        }
        write_innermost(i, inside, out[level + 1]);
    }

  private:
    void write_innermost(Index i, const RowMatrix& Sigma, double* out) const {
        const int q = clusters_.layout.q, o = static_cast<int>(Sigma.rows());
        std::vector<Pack> passed(static_cast<std::size_t>(o * q)), times(passed.size());
        Vector unit = Vector::Zero(clusters_.layout.p1);
        innermost(i, [&](const auto& factor, const auto& part, Index k, Index n) {
            Pack var[max_q * max_q];
            predict_covariance(factor, root_.back().data(), var);
            for (int j = 0; j < o; ++j) {
                unit[j] = 1.0;
                predict_effects(factor, part, root_.back().data(), unit.data(), &passed[j * q]);
                unit[j] = 0.0;
            }
            std::fill(times.begin(), times.end(), Pack::zero());
            for (int j = 0; j < o; ++j)
                for (int h = 0; h < o; ++h)
                    for (int a = 0; a < q; ++a) times[j * q + a] += passed[h * q + a] * Sigma(j, h);
            for (int a = 0; a < q; ++a)
                for (int b = 0; b < q; ++b)
                    for (int j = 0; j < o; ++j) var[a * q + b] += passed[j * q + a] * times[j * q + b];
            write_by_cluster(var, q * q, n, out + k * q * q);
        });
    }
};

template <class Write>
void descend_nested(const NestedTree& tree, int n_threads, Interrupt& interrupt, const Write& write) {
    constexpr Index units_each = 8;
    const Index m = tree.levels[0].m;
    parallel_for((m + units_each - 1) / units_each, n_threads, interrupt, [&](Index task) {
        for (Index i = task * units_each; i < std::min(m, (task + 1) * units_each); ++i) write(i);
    });
}

}  // namespace detail

// Predictions root u of all levels, b = Lambda u: out[l] (m_l, q_l), units in the order of the tree.
// `clusters` are the innermost units themselves, none put together.
inline void nested_effects(const NestedTree& tree, const ClusterBlocks& clusters, const double* Lambda,
                           const double* root, const double* c, double* const* out, int n_threads,
                           Interrupt& interrupt) {
    NestedRecord record(tree);
    evaluate_nested(tree, clusters, Lambda, false, n_threads, interrupt, &record);
    const detail::DescendingEffects effects(tree, clusters, Lambda, root, record);
    const Vector start = Eigen::Map<const Vector>(c, tree.p1);
    detail::descend_nested(tree, n_threads, interrupt, [&](Index i) { effects.write(0, i, start, out); });
}

// Var(root u | y) / sigma2 of all levels: out[l] (m_l, q_l, q_l).
inline void nested_effects_covariance(const NestedTree& tree, const ClusterBlocks& clusters,
                                      const double* Lambda, const double* root, double* const* out,
                                      int n_threads, Interrupt& interrupt) {
    NestedRecord record(tree);
    evaluate_nested(tree, clusters, Lambda, false, n_threads, interrupt, &record);
    const detail::DescendingCovariance covariance(tree, clusters, Lambda, root, record);
    const RowMatrix start(0, 0);
    detail::descend_nested(tree, n_threads, interrupt, [&](Index i) { covariance.write(0, i, start, out); });
}

}  // namespace lmmfast
