// Lower triangles of products summed over items, as many sums at a time as fit into registers.
#pragma once

#include <vector>

#include "lmmfast/base/packs.hpp"

namespace lmmfast::detail {

// Sums of products of a row `left` and a row `right` of each item; with `both_ways` of the transpose too.
// A Product says what the rows are: left(at, j) and right(at, j) for the item that begins at `at`.
// Size fixes the number of rows at compile time; 0 takes it at run time.
template <int Size>
class PackTriangle {
  public:
    // sum[j * size + k] for k <= j, over n items `step` packs apart
    template <class Product>
    static void add(Pack* sum, int size, const Product& product, int n, int step) {
        if constexpr (Size > 0)
            add_rows<0>(sum, product, n, step);
        else
            for (int j = 0; j < size; ++j)
                for (int k = 0; k <= j; ++k) {
                    Pack s = sum[j * size + k];
                    for (int i = 0; i < n; ++i) {
                        const int at = i * step;
                        s = multiply_add(product.left(at, j), product.right(at, k), s);
                        if (Product::both_ways)
                            s = multiply_add(product.right(at, j), product.left(at, k), s);
                    }
                    sum[j * size + k] = s;
                }
    }

  private:
    // As many rows from j0 on as fit into registers, then the rest.
    template <int j0, class Product>
    LMMFAST_FLATTEN static void add_rows(Pack* sum, const Product& product, int n, int step) {
        constexpr int j1 = rows_in_registers(j0), first = n_pairs(j0), count = n_pairs(j1) - first;
        Pack acc[count];
        unroll<count>([&](auto e) {
            constexpr int j = row_of(first + e), k = first + e - n_pairs(j);
            acc[e] = sum[j * Size + k];
        });
        for (int i = 0; i < n; ++i) {
            const int at = i * step;
            Pack left[j1], right[j1];
            unroll<j1>([&](auto j) {
                left[j] = product.left(at, j);
                right[j] = product.right(at, j);
            });
            unroll<count>([&](auto e) {
                constexpr int j = row_of(first + e), k = first + e - n_pairs(j);
                acc[e] = multiply_add(left[j], right[k], acc[e]);
                if constexpr (Product::both_ways) acc[e] = multiply_add(right[j], left[k], acc[e]);
            });
        }
        unroll<count>([&](auto e) {
            constexpr int j = row_of(first + e), k = first + e - n_pairs(j);
            sum[j * Size + k] = acc[e];
        });
        if constexpr (j1 < Size) add_rows<j1>(sum, product, n, step);
    }
    static constexpr int rows_in_registers(int j0) {
        constexpr int most = Pack::size >= 8 ? 24 : 10;
        int j1 = j0 + 1;
        while (j1 < Size && n_pairs(j1 + 1) - n_pairs(j0) <= most) ++j1;
        return j1;
    }
    // Row of entry e of a lower triangle stored by rows.
    static constexpr int row_of(int e) {
        int j = 0;
        while (n_pairs(j + 1) <= e) ++j;
        return j;
    }
};

// The sums over all lanes, and those of one lane of each pack.
inline void write_sums(const std::vector<Pack>& sums, double* out) {
    for (std::size_t e = 0; e < sums.size(); ++e) out[e] = sums[e].sum();
}
inline void write_lane(const std::vector<Pack>& sums, int lane, double* out) {
    const double* of_lane = reinterpret_cast<const double*>(sums.data()) + lane;
    for (std::size_t e = 0; e < sums.size(); ++e) out[e] = of_lane[e * Pack::size];
}

// x x'
struct SquareOf {
    const Pack* x;
    static constexpr bool both_ways = false;
    Pack left(int at, int j) const { return x[at + j]; }
    Pack right(int at, int k) const { return x[at + k]; }
};
// x e x' with a number e
struct ScaledSquare {
    const Pack *x, *e;
    static constexpr bool both_ways = false;
    Pack left(int at, int j) const { return x[at + j] * e[at]; }
    Pack right(int at, int k) const { return x[at + k]; }
};
// x y' + y x'
struct BothWays {
    const Pack *x, *y;
    static constexpr bool both_ways = true;
    Pack left(int at, int j) const { return x[at + j]; }
    Pack right(int at, int k) const { return y[at + k]; }
};

}  // namespace lmmfast::detail
