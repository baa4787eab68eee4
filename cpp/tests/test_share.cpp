// Clusters of one design put together: the totals of all clusters, with any number of threads.
#include "check.hpp"
#include "lmmfast/engines/moments/moments.hpp"
#include "lmmfast/engines/moments/share.hpp"

namespace lmmfast::testing::test_share {

namespace {

constexpr Index many_passes = 1000;  // so many that putting clusters together pays

// The clusters of a sample with the R of the first few of them over and over.
void repeat_designs(Sample& s, Index n_designs) {
    for (Index i = n_designs; i < s.m(); ++i) {
        const Index design = (i * i) % n_designs;
        for (int f = 0; f < n_pairs(s.layout.q); ++f)
            s.data.get()[(i / lanes * s.layout.n_fields() + f) * lanes + i % lanes] = s.field(design, f);
    }
}

void check_same_totals(int m, int q, int p, Index n_designs) {
    Sample s(std::vector<int>(static_cast<std::size_t>(m), 3), q, p, 17);
    repeat_designs(s, n_designs);
    Interrupt interrupt;
    const auto shared = share_designs(s.blocks, s.m(), many_passes, 1, interrupt);
    CHECK(shared.has_value());
    CHECK(shared->n_designs == n_designs);
    CHECK(2 * shared->n_blocks <= s.blocks.n_blocks + 1);
    const Matrix Lambda = Matrix::Identity(q, q) * 0.7;
    const double* perp = s.sums.perp.data();
    const Totals want = evaluate_moments(s.blocks, Lambda.data(), perp, true, 1, interrupt);
    const Totals got = evaluate_moments(shared->blocks(), Lambda.data(), perp, true, 1, interrupt);
    for (std::size_t e = 0; e < want.values.size(); ++e) CHECK(close(got.values[e], want.values[e], 1e-11));
    for (const int n_threads : {2, 5}) {
        const auto again = share_designs(s.blocks, s.m(), many_passes, n_threads, interrupt);
        CHECK(std::equal(again->data.data(), again->data.data() + again->data.size(), shared->data.data()));
    }
}

}  // namespace

TEST(share) {
    check_same_totals(3001, 1, 2, 1);  // in lanes, several portions
    check_same_totals(3001, 2, 2, 7);  // scattered over the blocks
    check_same_totals(500, 2, 4, 20);  // fewer clusters than would fill the strands
    check_same_totals(900, 3, 13, 3);  // matrix products
    // Designs that do not repeat, and few clusters, are left alone.
    Interrupt interrupt;
    const Sample ordinary(std::vector<int>(1000, 3), 2, 2, 19);
    CHECK(!share_designs(ordinary.blocks, ordinary.m(), many_passes, 1, interrupt));
    const Sample few(std::vector<int>(20, 3), 1, 1, 19);
    CHECK(!share_designs(few.blocks, few.m(), many_passes, 1, interrupt));
    // Nor are those whose passes cost less than putting them together.
    Sample cheap(std::vector<int>(5000, 3), 1, 2, 23);
    repeat_designs(cheap, 7);
    CHECK(!share_designs(cheap.blocks, cheap.m(), 3, 1, interrupt));
    CHECK(share_designs(cheap.blocks, cheap.m(), many_passes, 1, interrupt));
    std::puts("share: ok");
}

}  // namespace lmmfast::testing::test_share
