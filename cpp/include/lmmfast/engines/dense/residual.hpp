// Rdot and its derivatives, row by row, of some patterns at once.
#pragma once

#include <cmath>
#include <vector>

#include "lmmfast/engines/dense/input.hpp"
#include "lmmfast/residual/pack_functions.hpp"

namespace lmmfast {

// The kernels run on packs (patterns side by side) or on doubles (one pattern): what both can do.
template <class Scalar>
struct ScalarOf;

template <>
struct ScalarOf<Pack> {
    static constexpr int width = Pack::size;
    static Pack load(const double* p) { return Pack::load_unaligned(p); }
    static void store(double* p, Pack x) { Eigen::internal::pstoreu(p, x.v); }
    static Pack all(double x) { return Pack::all(x); }
    static Pack exponential(Pack x) { return exp(x); }
    static Pack root(Pack x) { return x.sqrt(); }
    static Pack size(Pack x) { return {Eigen::internal::pabs(x.v)}; }
    static double sum(Pack x) { return x.sum(); }
};

template <>
struct ScalarOf<double> {
    static constexpr int width = 1;
    static double load(const double* p) { return *p; }
    static void store(double* p, double x) { *p = x; }
    static double all(double x) { return x; }
    static double exponential(double x) { return std::exp(x); }
    static double root(double x) { return std::sqrt(x); }
    static double size(double x) { return std::abs(x); }
    static double sum(double x) { return x; }
};

// C and dC of the pairs of one row with those before it; doubles, the lanes of a pair side by side.
template <class Scalar>
class CorrelationRows {
    using Of = ScalarOf<Scalar>;
    static constexpr int width = Of::width;

  public:
    CorrelationRows(const DenseBucket& bucket, const Correlation& correlation)
        : correlation_(correlation), n_(bucket.n), n_lanes_(bucket.n_lanes) {
        const auto size = static_cast<std::size_t>(n_) * width;
        d_.resize(correlation.kind == Correlation::Kind::distance ? size : 0);
        C_.resize(size);
        dC_.resize(size * static_cast<std::size_t>(correlation.n_params));
    }

    Scalar C(int l) const { return Of::load(&C_[static_cast<std::size_t>(l) * width]); }
    Scalar dC(int k, int l) const { return Of::load(dC_.data() + (Index{k} * n_ + l) * width); }

    // Row j, up to its diagonal, of the patterns from `lane` of a pack on.
    void compute(Index pack, int lane, int j) {
        switch (correlation_.kind) {
            case Correlation::Kind::distance:
                compute_distances(pack, lane, j);
                correlation_.structure->evaluate(d_.data(), Index{j + 1} * width, C_.data(), dC_.data());
                break;
            case Correlation::Kind::table:
                look_up(correlation_.positions + pack * n_ * n_lanes_ + lane, j);
                break;
            case Correlation::Kind::given:
                copy(pack, lane, j);
                break;
            case Correlation::Kind::none:
                for (int e = 0; e < j * width; ++e) C_[static_cast<std::size_t>(e)] = 0.0;
                for (int w = 0; w < width; ++w) C_[static_cast<std::size_t>(j * width + w)] = 1.0;
        }
    }

  private:
    void compute_distances(Index pack, int lane, int j) {
        const int dims = correlation_.n_coords;
        const auto row = [&](int l) {
            return correlation_.coords + (pack * n_ + l) * dims * n_lanes_ + lane;
        };
        for (int l = 0; l <= j; ++l) {
            Scalar sum = Of::all(0.0), step = sum;
            for (int c = 0; c < dims; ++c) {
                step = Of::load(row(j) + c * n_lanes_) - Of::load(row(l) + c * n_lanes_);
                sum = sum + step * step;
            }
            // exact on a line: there are powers of whole numbers
            Of::store(&d_[static_cast<std::size_t>(l) * width], dims == 1 ? Of::size(step) : Of::root(sum));
        }
    }
    void look_up(const std::int32_t* positions, int j) {
        const Index T = correlation_.T;
        for (int l = 0; l <= j; ++l)
            for (int w = 0; w < width; ++w) {
                const Index entry =
                    T * positions[Index{j} * n_lanes_ + w] + positions[Index{l} * n_lanes_ + w];
                const Index at = Index{l} * width + w;
                C_.data()[at] = correlation_.C[entry];
                for (int k = 0; k < correlation_.n_params; ++k)
                    dC_.data()[Index{k} * n_ * width + at] = correlation_.dC[T * T * k + entry];
            }
    }
    void copy(Index pack, int lane, int j) {
        const auto entry = [&](Index matrix, int l) {
            return ((matrix * n_ + j) * n_ + l) * n_lanes_ + lane;
        };
        for (int l = 0; l <= j; ++l) {
            Of::store(C_.data() + Index{l} * width, Of::load(correlation_.C + entry(pack, l)));
            for (int k = 0; k < correlation_.n_params; ++k)
                Of::store(dC_.data() + (Index{k} * n_ + l) * width,
                          Of::load(correlation_.dC + entry(pack * correlation_.n_params + k, l)));
        }
    }

    Correlation correlation_;
    int n_, n_lanes_;
    std::vector<double> d_, C_, dC_;
};

template <class Scalar>
class ResidualRows {
    using Of = ScalarOf<Scalar>;

  public:
    ResidualRows(const DenseBucket& bucket, const DenseCovariance& covariance)
        : bucket_(bucket),
          covariance_(covariance),
          correlation_(bucket, covariance.correlation),
          s_(static_cast<std::size_t>(bucket.n), Of::all(0.0)),
          g_(static_cast<std::size_t>(bucket.n) * static_cast<std::size_t>(bucket.n_variance), Of::all(0.0)) {
    }

    // Which patterns: those from `lane` of a pack on.
    void begin(Index pack, int lane) {
        pack_ = pack;
        lane_ = lane;
        const int n = bucket_.n, n_variance = bucket_.n_variance, n_lanes = bucket_.n_lanes;
        for (int j = 0; j < n; ++j) {
            const Index row = pack * n + j;
            Scalar log_s = Of::all(0.0);
            for (int k = 0; k < n_variance; ++k) {
                g(k, j) = Of::load(bucket_.G + (row * n_variance + k) * n_lanes + lane);
                log_s = log_s + g(k, j) * covariance_.kappa[k];
            }
            Scalar scale = n_variance ? Of::exponential(log_s) : Of::all(1.0);
            if (bucket_.inverse_root_weights)
                scale = scale * Of::load(bucket_.inverse_root_weights + row * n_lanes + lane);
            s_[static_cast<std::size_t>(j)] = scale;
        }
    }

    // R (j + 1,): row j up to its diagonal; dR: its derivatives, each `stride` after the one before.
    void compute(int j, Scalar* R, Scalar* dR, Index stride) {
        correlation_.compute(pack_, lane_, j);
        const int n_variance = bucket_.n_variance, n_psi = covariance_.correlation.n_params;
        const double share = covariance_.has_nugget ? 1.0 - covariance_.nu : 1.0;
        for (int l = 0; l <= j; ++l) {
            const Scalar one = Of::all(l == j ? 1.0 : 0.0), C = correlation_.C(l);
            const Scalar ss = s_[static_cast<std::size_t>(j)] * s_[static_cast<std::size_t>(l)];
            const Scalar scaled = ss * share;
            R[l] = covariance_.has_nugget ? scaled * C + ss * one * covariance_.nu : ss * C;
            if (!dR) continue;
            Scalar* out = dR + l;
            for (int k = 0; k < n_variance; ++k, out += stride) *out = (g(k, j) + g(k, l)) * R[l];
            for (int k = 0; k < n_psi; ++k, out += stride) *out = scaled * correlation_.dC(k, l);
            if (covariance_.has_nugget) *out = ss * (one - C);
        }
    }

  private:
    Scalar& g(int k, int j) { return g_.data()[Index{k} * bucket_.n + j]; }

    DenseBucket bucket_;
    DenseCovariance covariance_;
    CorrelationRows<Scalar> correlation_;
    std::vector<Scalar> s_, g_;
    Index pack_ = 0;
    int lane_ = 0;
};

}  // namespace lmmfast
