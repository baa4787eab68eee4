// Runs one kernel on fixed data, for count.py: `kernels NAME`. `kernels --list` prints the names,
// `kernels --compiler` what built it.
//
// The functions measure_… are what is counted; they are reached through a table, so that the compiler
// keeps them as functions. Data come from a generator spelled out here: those of the standard library
// differ between its makers.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "lmmfast/compress/compress.hpp"
#include "lmmfast/engines/moments/moments.hpp"
#include "lmmfast/engines/moments/random_effects.hpp"

using namespace lmmfast;

namespace {

constexpr int n_clusters = 4000, mean_rows = 5;
constexpr Index n_blocks = n_clusters / lanes;

// Numerical Recipes' 64-bit linear congruence; values in (-1, 1).
class Generator {
  public:
    double operator()() { return static_cast<double>(next() >> 11) * 0x1p-52 - 1.0; }
    Index below(Index n) { return static_cast<Index>(next() >> 33) % n; }

  private:
    std::uint64_t next() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }
    std::uint64_t state_ = 1;
};

}  // namespace

// Clusters of 3 to 7 rows with p columns of X and q of Z, the first of each constant.
struct Data {
    Layout layout;
    std::vector<double> columns, beta, one{1.0};
    std::vector<std::int64_t> ptr{0}, order;
    Rows rows;
    struct alignas(64) Field {
        double of_cluster[lanes];
    };
    std::vector<Field> fields;
    CompressedSums sums;
    std::vector<double> Lambda, c, b;
    Interrupt interrupt;

    Data(int q, int p, bool shuffled) : layout{q, p + 1}, beta(static_cast<std::size_t>(p), 0.0) {
        Generator random;
        for (int i = 0; i < n_clusters; ++i) ptr.push_back(ptr.back() + mean_rows - 2 + i % 5);
        const Index n = ptr.back();
        columns.resize(static_cast<std::size_t>(n * (p + q - 1)));
        for (double& x : columns) x = random();
        const double* next = columns.data();
        const auto column = [&] { return Column{std::exchange(next, next + n), 1}; };
        const Column constant{one.data(), 0};
        for (int j = 0; j < p; ++j) rows.X.push_back(j == 0 ? constant : column());
        for (int k = 0; k < q; ++k) rows.Z.push_back(k == 0 ? constant : column());
        rows.y = column();
        rows.beta = beta.data();
        rows.ptr = ptr.data();
        rows.n_clusters = n_clusters;
        if (shuffled) {
            order.resize(static_cast<std::size_t>(n));
            std::iota(order.begin(), order.end(), 0);
            for (Index k = n; k-- > 1;) std::swap(order[k], order[random.below(k + 1)]);
            rows.order = order.data();
        }
        fields.resize(static_cast<std::size_t>(n_blocks * layout.n_fields()));
        Lambda.assign(static_cast<std::size_t>(q) * q, 0.0);
        for (int a = 0; a < q; ++a)
            for (int k = 0; k <= a; ++k) Lambda[a * q + k] = a == k ? 0.7 : 0.2;
        c.assign(static_cast<std::size_t>(p + 1), -0.1);
        c[p] = 1.0;
        b.resize(static_cast<std::size_t>(n_clusters) * q);
    }
    ClusterBlocks blocks() const { return {layout, n_blocks, fields[0].of_cluster}; }
};

void measure_compress(Data& data) {
    data.sums = compress(data.layout, data.rows, data.fields[0].of_cluster, 1, data.interrupt);
}
void measure_totals(Data& data) {
    evaluate_moments(data.blocks(), data.Lambda.data(), data.sums.perp.data(), false, 1, data.interrupt);
}
void measure_totals_kr(Data& data) {
    evaluate_moments(data.blocks(), data.Lambda.data(), data.sums.perp.data(), true, 1, data.interrupt);
}
void measure_totals_own(Data& data) {
    ClusterBlocks blocks = data.blocks();
    blocks.z_in_x = data.sums.z_in_x.data();
    evaluate_moments(blocks, data.Lambda.data(), data.sums.perp.data(), false, 1, data.interrupt);
}
void measure_random_effects(Data& data) {
    random_effects(data.blocks(), n_clusters, data.Lambda.data(), data.Lambda.data(), data.c.data(),
                   data.b.data(), 1, data.interrupt);
}

struct Kernel {
    const char* name;
    int q, p;
    bool shuffled;
    void (*prepare)(Data&);
    void (*measure)(Data&);
};

void nothing(Data&) {}
// Compression ahead of a kernel: by another name, for it is not to be counted there.
void pack(Data& data) {
    data.sums = compress(data.layout, data.rows, data.fields[0].of_cluster, 1, data.interrupt);
}

// The same with the columns of Z among those of X.
void pack_own(Data& data) {
    for (std::size_t k = 0; k < data.rows.Z.size(); ++k) data.rows.Z[k] = data.rows.X[k];
    pack(data);
}

constexpr Kernel kernels[] = {
    {"compress q=2 p=4, sorted", 2, 4, false, nothing, measure_compress},
    {"compress q=2 p=4, shuffled", 2, 4, true, nothing, measure_compress},
    {"totals q=1 p=4", 1, 4, false, pack, measure_totals},
    {"totals q=2 p=4", 2, 4, false, pack, measure_totals},
    {"totals q=2 p=4, own columns", 2, 4, false, pack_own, measure_totals_own},
    {"totals q=2 p=4, second order", 2, 4, false, pack, measure_totals_kr},
    {"totals q=3 p=20", 3, 20, false, pack, measure_totals},
    {"random effects q=2 p=4", 2, 4, false, pack, measure_random_effects},
};

int main(int n_arguments, char** arguments) {
    const char* wanted = n_arguments == 2 ? arguments[1] : "--list";
    if (std::strcmp(wanted, "--compiler") == 0) {
#ifdef __clang__
        std::printf("clang %d\n", __clang_major__);
#else
        std::printf("gcc %d\n", __GNUC__);
#endif
        return 0;
    }
    const bool list = std::strcmp(wanted, "--list") == 0;
    for (const Kernel& kernel : kernels) {
        if (list) std::puts(kernel.name);
        if (std::strcmp(wanted, kernel.name) != 0) continue;
        Data data(kernel.q, kernel.p, kernel.shuffled);
        kernel.prepare(data);
        kernel.measure(data);
        return 0;
    }
    return list ? 0 : 1;
}
