// Many responses of one design: R and Q'X are found once, the responses stand side by side in a pack,
// each with its own theta, and the next one takes the place of one whose search has ended.
#pragma once

#include <atomic>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "lmmfast/engines/moments/moments.hpp"
#include "lmmfast/search/resumable_search.hpp"

namespace lmmfast {

// What all responses share, and Q'y of each.
struct ManyResponses {
    Layout layout;  // q, p + 1
    Index n_clusters = 0;
    std::vector<double> design;         // (n_clusters, n_pairs(q) + q p): R, Q'X
    std::vector<double> projected;      // (n_responses, n_clusters, q): Q'y, if it is not
    const double* elsewhere = nullptr;  // in memory of somebody else
    std::vector<double> perp;           // (n_responses, p1, p1): sum of A'(I - QQ')A
    std::vector<double> constants;      // (n_responses,): of the log-likelihood
    std::vector<int> z_in_x;            // as in CompressedSums
    // (n_clusters,): for how many clusters of its design each stands in sums without A (share_responses.hpp);
    // empty: for itself.
    std::vector<double> counts;

    Index n_responses() const { return static_cast<Index>(constants.size()); }
    int design_size() const { return n_pairs(layout.q) + layout.q * (layout.p1 - 1); }
    // Q'y of a response, (n_clusters, q).
    const double* projected_of(Index response) const {
        return (elsewhere ? elsewhere : projected.data()) + response * n_clusters * layout.q;
    }

    // From blocks whose columns are X, then the responses, then others; `products` (p1, p1 of the blocks)
    // as compress() leaves them in perp.
    static ManyResponses from_blocks(const ClusterBlocks& blocks, Index n_clusters, int p, int n_responses,
                                     const double* products, const double* constants) {
        const int q = blocks.layout.q, K = n_pairs(q);
        ManyResponses out;
        if (blocks.z_in_x) out.z_in_x.assign(blocks.z_in_x, blocks.z_in_x + q);
        out.layout = {q, p + 1};
        out.n_clusters = n_clusters;
        out.constants.assign(constants, constants + n_responses);
        out.design.resize(static_cast<std::size_t>(n_clusters) * out.design_size());
        out.projected.resize(static_cast<std::size_t>(n_responses) * n_clusters * q);
        double* design = out.design.data();
        for (Index i = 0; i < n_clusters; ++i) {
            const double* block = blocks.block(i / lanes) + i % lanes;
            for (int k = 0; k < K; ++k) *design++ = block[k * lanes];
            for (int a = 0; a < q; ++a)
                for (int j = 0; j < p; ++j) *design++ = block[blocks.layout.qa(a, j) * lanes];
            for (int a = 0; a < q; ++a)
                for (int r = 0; r < n_responses; ++r)
                    out.projected[(r * n_clusters + i) * q + a] = block[blocks.layout.qa(a, p + r) * lanes];
        }
        const int side = blocks.layout.p1, p1 = p + 1;
        for (int r = 0; r < n_responses; ++r)
            for (int j = 0; j < p1; ++j)
                for (int k = 0; k < p1; ++k)
                    out.perp.push_back(products[(j < p ? j : p + r) * side + (k < p ? k : p + r)]);
        return out;
    }
};

namespace detail {

// R and the wanted columns of Q'A, of which the last is y, of one cluster for a pack of responses.
class ResponsePart {
  public:
    ResponsePart(const Layout& layout, const std::vector<int>& columns, const double* design,
                 const double* projected)
        : layout_(layout), columns_(columns), design_(design), projected_(projected) {}

    Pack R(int a, int b) const { return Pack::all(design_[layout_.r(a, b)]); }
    Pack QA(int a, int j) const {
        const int p = layout_.p1 - 1;
        return columns_[j] < p ? Pack::all(design_[n_pairs(layout_.q) + a * p + columns_[j]])
                               : Pack::load(projected_ + a * Pack::size);
    }

  private:
    const Layout& layout_;
    const std::vector<int>& columns_;
    const double *design_, *projected_;
};

// A pack of responses, each at its own Lambda.
class ResponsePack {
  public:
    virtual ~ResponsePack() = default;
    virtual void set_response(int lane, Index response) = 0;
    virtual void set_Lambda(int lane, const double* Lambda) = 0;
    // All sums at the Lambdas, those for `totals` without kr and those for it with kr; it reads them lane by
    // lane, the same numbers whatever other lanes want.
    virtual void evaluate(bool without_kr, bool with_kr) = 0;
    virtual Totals totals(int lane, Index response, bool with_kr) = 0;
};

// Q and P1 as in BlockFactor.
template <int Q, int P1>
class SizedResponsePack final : public ResponsePack {
    // Of the columns of A that are not columns of Z, where all of those are in X.
    static constexpr int own_P = Q > 0 && P1 > Q ? P1 - Q : 0, own_Q = own_P > 0 ? Q : 0;

  public:
    explicit SizedResponsePack(const ManyResponses& data)
        : data_(data),
          all_columns_(static_cast<std::size_t>(data.layout.p1)),
          Lambda_(static_cast<std::size_t>(data.layout.q) * data.layout.q, Pack::zero()),
          projected_(static_cast<std::size_t>(data.n_clusters) * data.layout.q, Pack::zero()),
          items_(static_cast<std::size_t>(batch_packs) *
                 WhitenedLayout<Q, P1>{data.layout.q, data.layout.p1}.size()) {
        std::iota(all_columns_.begin(), all_columns_.end(), 0);
        if (own_P > 0 && !data.z_in_x.empty()) own_.emplace(data.layout, data.z_in_x.data());
    }

    void set_response(int lane, Index response) override {
        const std::size_t size = projected_.size();
        const double* from = data_.projected_of(response);
        for (std::size_t e = 0; e < size; ++e) place(projected_, e, lane) = from[e];
    }
    void set_Lambda(int lane, const double* Lambda) override {
        for (std::size_t e = 0; e < Lambda_.size(); ++e) place(Lambda_, e, lane) = Lambda[e];
    }
    void evaluate(bool without_kr, bool with_kr) override {
        const auto [q, p1] = data_.layout;
        if (own_ && without_kr) {
            own_sums_.emplace(q, own_->n_own());
            add_clusters<own_Q, own_P>(own_->columns(), *own_sums_, own_logdet_);
        }
        if (!own_ || with_kr) {
            sums_.emplace(q, p1, with_kr);
            add_clusters<Q, P1>(all_columns_, *sums_, logdet_);
        }
        if (!data_.counts.empty()) add_designs();
    }
    Totals totals(int lane, Index response, bool with_kr) override {
        const auto [q, p1] = data_.layout;
        const MomentLayout layout{q, p1, with_kr};
        const double* perp = data_.perp.data() + static_cast<std::size_t>(response) * p1 * p1;
        if (own_ && !with_kr) {
            flat_.resize(static_cast<std::size_t>(OwnLayout{q, own_->n_own()}.size()));
            own_sums_->write_lane(lane, flat_.data());
            flat_[0] = own_logdet_[lane];
            return assemble(layout, all_columns(*own_, flat_.data()).data(), perp);
        }
        flat_.resize(sums_->size());
        sums_->write_lane(lane, flat_.data());
        flat_[0] = logdet_[lane];
        for (std::size_t e = 0; e < designs_.size(); ++e) flat_[e] = place(designs_, e, lane);
        return assemble(layout, flat_.data(), perp);
    }

  private:
    template <int q, int n_columns, class Sums>
    void add_clusters(const std::vector<int>& columns, Sums& sums, double* logdet) {
        BlockFactor<q, n_columns, Pack> factor({data_.layout.q, static_cast<int>(columns.size())},
                                               Lambda_.data());
        const int size = factor.layout().size();
        LogProduct det;
        int n = 0;
        for (Index i = 0; i < data_.n_clusters; ++i) {
            const ResponsePart part(data_.layout, columns, data_.design.data() + i * data_.design_size(),
                                    reinterpret_cast<const double*>(&projected_[i * data_.layout.q]));
            factor.factorise(part, det);
            factor.whiten(part, &items_[static_cast<std::size_t>(n) * size]);
            if (++n < batch_packs) continue;
            sums.add(items_.data(), n);
            n = 0;
        }
        sums.add(items_.data(), n);
        det.write(logdet);
    }
    // The sums without A.
    void add_designs() {
        const int q = data_.layout.q, p = data_.layout.p1 - 1;
        const std::vector<int> none;
        designs_.assign(static_cast<std::size_t>(MomentLayout{q, p + 1}.gram()), Pack::zero());
        BlockFactor<0, 0, Pack> factor({q, 0}, Lambda_.data());
        for (Index i = 0; i < data_.n_clusters; ++i)
            if (data_.counts[static_cast<std::size_t>(i)] != 0.0) {
                const ResponsePart part(data_.layout, none, data_.design.data() + i * data_.design_size(),
                                        nullptr);
                add_design(factor, part, Pack::all(data_.counts[static_cast<std::size_t>(i)]), items_.data(),
                           designs_);
            }
    }
    static double& place(std::vector<Pack>& packs, std::size_t e, int lane) {
        return reinterpret_cast<double*>(packs.data())[e * Pack::size + static_cast<std::size_t>(lane)];
    }

    const ManyResponses& data_;
    std::vector<int> all_columns_;
    std::optional<OwnColumns> own_;
    std::vector<Pack> Lambda_, projected_;  // (q, q); (n_clusters, q)
    std::vector<Pack> items_;
    std::vector<Pack> designs_;  // logdet, G, G G where clusters were put together
    std::optional<PackSums<Q, P1>> sums_;
    std::optional<OwnSums<own_Q, own_P>> own_sums_;  // where own columns are enough
    double logdet_[Pack::size], own_logdet_[Pack::size];
    std::vector<double> flat_;
};

inline std::unique_ptr<ResponsePack> make_pack(const ManyResponses& data) {
    std::unique_ptr<ResponsePack> pack;
    with_fixed_size<std::min(2, max_fixed_q)>(data.layout.q, [&](auto Q) {
        with_fixed_size<std::min(4, max_fixed_p1)>(data.layout.p1, [&](auto P1) {
            pack = std::make_unique<SizedResponsePack<Q.value, P1.value>>(data);
        });
    });
    return pack;
}

template <class Report>
void search_responses(const ManyResponses& data, const Problem& problem, const RandomCovariance& covariance,
                      const SearchOptions& options, std::atomic<Index>& next, Interrupt& interrupt,
                      const Report& report) {
    const auto pack = make_pack(data);
    std::optional<Search> searches[Pack::size];
    Index response[Pack::size];
    const auto take_next = [&](int lane) {
        response[lane] = next.fetch_add(1);
        if (response[lane] >= data.n_responses()) return searches[lane].reset();
        Problem own = problem;
        own.constant = data.constants[static_cast<std::size_t>(response[lane])];
        searches[lane].emplace(std::move(own), covariance, options);
        pack->set_response(lane, response[lane]);
    };
    for (int lane = 0; lane < Pack::size; ++lane) take_next(lane);
    while (true) {
        bool without_kr = false, with_kr = false;
        for (int lane = 0; lane < Pack::size; ++lane) {
            if (!searches[lane]) continue;
            (searches[lane]->with_kr() ? with_kr : without_kr) = true;
            pack->set_Lambda(lane, searches[lane]->Lambda());
        }
        if (!without_kr && !with_kr) return;
        interrupt.check();
        pack->evaluate(without_kr, with_kr);
        for (int lane = 0; lane < Pack::size; ++lane) {
            if (!searches[lane]) continue;
            // A search is told what it asked for, whatever its neighbours did.
            searches[lane]->tell(pack->totals(lane, response[lane], searches[lane]->with_kr()));
            if (!searches[lane]->done()) continue;
            report(response[lane], searches[lane]->optimum());
            take_next(lane);
        }
    }
}

}  // namespace detail

// The optimum of every response: calls report(response, optimum) from several threads. `problem` is that
// of all responses but for its constant. Throws Interrupted.
template <class Report>
void maximise_each(const ManyResponses& data, const Problem& problem, const RandomCovariance& covariance,
                   const SearchOptions& options, int n_threads, Interrupt& interrupt, const Report& report) {
    std::atomic<Index> next{0};
    const Index n_tasks = std::min<Index>(n_threads, (data.n_responses() + Pack::size - 1) / Pack::size);
    parallel_for(n_tasks, n_threads, interrupt, [&](Index) {
        detail::search_responses(data, problem, covariance, options, next, interrupt, report);
    });
}

}  // namespace lmmfast
