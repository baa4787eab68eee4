// Cholesky factor and inverse of one large matrix, in place, by tiles over threads: the same to the last
// bit for any number of threads, and no BLAS of the machine whose own threads would compete.
#pragma once

#include <Eigen/Dense>
#include <algorithm>
#include <vector>

#include "lmmfast/base/parallel.hpp"

namespace lmmfast {

// Column-major (n, n).
class TiledCholesky {
  public:
    using Matrix = Eigen::MatrixXd;

    explicit TiledCholesky(Index n)
        : n_(n),
          tile_(n < 2000 ? 128 : 192),
          S_(Matrix::Zero(n, n)),
          corners_(static_cast<std::size_t>(n_tiles())) {}

    // The lower triangle is read; after factorise() it is L, after invert() the inverse.
    Matrix& matrix() { return S_; }
    const Matrix& matrix() const { return S_; }

    // False where the matrix is not positive definite.
    bool factorise(int n_threads, Interrupt& interrupt) {
        for (Index k = 0; k < n_tiles(); ++k) {
            const Index at = begin(k), width = size(k);
            const Index below = n_ - at;
            // Rows of the panel, in chunks: all of it before depends on finished columns alone.
            const Index n_chunks = (below + tile_ - 1) / tile_;
            parallel_for(n_chunks, threads(n_threads), interrupt, [&](Index chunk) {
                const Index row = at + chunk * tile_, height = std::min(tile_, n_ - row);
                for (Index from = 0; from < at; from += depth) {
                    const Index inner = std::min(depth, at - from);
                    S_.block(row, at, height, width).noalias() -=
                        S_.block(row, from, height, inner) * S_.block(at, from, width, inner).transpose();
                }
            });
            Eigen::Ref<Matrix> corner = S_.block(at, at, width, width);
            const Eigen::LLT<Eigen::Ref<Matrix>> small(corner);
            if (small.info() != Eigen::Success) return false;
            Matrix& inverse = corners_[static_cast<std::size_t>(k)];
            inverse.setIdentity(width, width);
            corner.triangularView<Eigen::Lower>().solveInPlace(inverse);
            parallel_for(n_chunks - 1, threads(n_threads), interrupt, [&](Index chunk) {
                const Index row = at + (chunk + 1) * tile_, height = std::min(tile_, n_ - row);
                auto part = S_.block(row, at, height, width);
                const Matrix before = part;
                part.noalias() = before * inverse.transpose();
            });
        }
        return true;
    }

    double logdet() const { return 2.0 * S_.diagonal().array().log().sum(); }

    // L^-1 B and L'^-1 B in place.
    void forward(Matrix& B) const { S_.triangularView<Eigen::Lower>().solveInPlace(B); }
    void backward(Matrix& B) const { S_.triangularView<Eigen::Lower>().transpose().solveInPlace(B); }

    // The lower triangle becomes that of the inverse; the upper one serves for L'^-1 on the way.
    void invert(int n_threads, Interrupt& interrupt) {
        invert_factor(n_threads, interrupt);
        multiply_factor(n_threads, interrupt);
    }

    // Tile columns of L^-1 do not depend on each other; tile (i, j) goes transposed to (j, i).
    void invert_factor(int n_threads, Interrupt& interrupt) {
        parallel_for(n_tiles(), threads(n_threads), interrupt, [&](Index j) {
            Matrix sum(size(j), tile_);
            for (Index i = j + 1; i < n_tiles(); ++i) {
                auto part = sum.leftCols(size(i));
                part.noalias() = corners_[static_cast<std::size_t>(j)].transpose() *
                                 S_.block(begin(i), begin(j), size(i), size(j)).transpose();
                for (Index from = begin(j + 1); from < begin(i); from += depth) {
                    const Index inner = std::min(depth, begin(i) - from);
                    part.noalias() += S_.block(begin(j), from, size(j), inner) *
                                      S_.block(begin(i), from, size(i), inner).transpose();
                }
                S_.block(begin(j), begin(i), size(j), size(i)).noalias() =
                    -part * corners_[static_cast<std::size_t>(i)].transpose();
            }
        });
    }

    // After invert_factor(): columns b … b + width - 1 of L'^-1, rows 0 … b + width - 1, row-major.
    // They lie within one tile. Returns the number of rows.
    Index factor_columns(Index b, Index width, double* out) const {
        const Index tile = b / tile_, top = begin(tile), here = std::min(width, n_ - b);
        const Matrix& corner = corners_[static_cast<std::size_t>(tile)];
        std::fill_n(out, (b + here) * width, 0.0);
        for (Index j = 0; j < here; ++j) {
            const double* from = S_.col(b + j).data();
            for (Index a = 0; a < top; ++a) out[a * width + j] = from[a];
            for (Index a = top; a <= b + j; ++a) out[a * width + j] = corner(b + j - top, a - top);
        }
        return b + here;
    }

  private:
    static constexpr Index depth = 512;

    Index n_tiles() const { return (n_ + tile_ - 1) / tile_; }
    Index begin(Index k) const { return k * tile_; }
    Index size(Index k) const { return std::min(tile_, n_ - k * tile_); }
    // Starting threads costs more than small matrices.
    int threads(int n_threads) const { return n_ < 4 * tile_ ? 1 : n_threads; }

    // Tile (i, j), i >= j, of the inverse: sum over k >= i of the tiles (i, k) and (j, k)' of L'^-1.
    void multiply_factor(int n_threads, Interrupt& interrupt) {
        // The corners of L'^-1 would be overwritten by those of the inverse: they stay aside.
        parallel_for(n_tiles(), threads(n_threads), interrupt, [&](Index task) {
            const Index i = task;
            const auto& corner = corners_[static_cast<std::size_t>(i)];
            for (Index j = 0; j <= i; ++j) {
                auto out = S_.block(begin(i), begin(j), size(i), size(j));
                if (j == i)
                    out.noalias() = corner.transpose() * corner;
                else
                    out.noalias() =
                        corner.transpose() * S_.block(begin(j), begin(i), size(j), size(i)).transpose();
                for (Index from = begin(i + 1); from < n_; from += depth) {
                    const Index inner = std::min(depth, n_ - from);
                    out.noalias() += S_.block(begin(i), from, size(i), inner) *
                                     S_.block(begin(j), from, size(j), inner).transpose();
                }
            }
        });
    }

    Index n_;
    // Larger tiles cost less to multiply, smaller ones share out evenly.
    Index tile_;
    Matrix S_;
    std::vector<Matrix> corners_;  // inverses of the diagonal tiles of L
};

}  // namespace lmmfast
