"""The moments engine, every build of it, beside dense algebra: all totals, all shapes of data."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest
from samples import COVARIANCES, LEVELS, assert_totals, random_phi, sample

from lmmfast.engines.totals import Totals

CORES = list(LEVELS.values())
cores = pytest.mark.parametrize("core", CORES, ids=list(LEVELS))
# Both sides of the tile of 32 rows; 11 clusters, so that lanes stay empty.
MIXED_SIZES = [1, 80, 2, 33, 3, 31, 5, 32, 8, 40, 13]


def root(rng, q):  # a lower triangular Lambda
    return np.tril(rng.uniform(0.2, 1.0, (q, q)) * rng.choice([-1, 1], (q, q)))


@cores
@pytest.mark.parametrize("name", COVARIANCES)
def test_every_structure(core, name):
    covariance = COVARIANCES[name]
    rng = np.random.default_rng(1)
    data = sample(rng, MIXED_SIZES, covariance.q, 3, weights=True, offset=True, shuffled=True)
    Lambda = covariance.Lambda(random_phi(covariance, rng))
    assert_totals(data.totals(core, Lambda), data.reference().totals(Lambda, True), 1e-12)


@cores
@pytest.mark.parametrize("p", [1, 2, 4, 11, 12, 13, 20])
@pytest.mark.parametrize("q", [1, 2, 3, 4, 5, 10])
def test_every_size(core, q, p):
    """Both sides of the switch from lanes to matrix products, with and without kr."""
    rng = np.random.default_rng([q, p])
    with_kr = q <= 5
    data = sample(rng, MIXED_SIZES, q, p, weights=bool(p % 2))
    Lambda = root(rng, q)
    got = data.totals(core, Lambda, kr=with_kr)
    assert_totals(got, data.reference().totals(Lambda, with_kr), 1e-12)


@cores
@pytest.mark.parametrize("q", [1, 3, 10])
@pytest.mark.parametrize("p", [2, 13])
@pytest.mark.parametrize("n_i", [31, 32, 33, 40, 255, 256, 257, 264, 1000])
def test_every_length_of_a_cluster(core, n_i, p, q):
    if q == 10 and n_i > 100:
        n_i //= 4  # dense algebra is slow
    rng = np.random.default_rng([n_i, p, q])
    data = sample(rng, [n_i, 2, n_i + 1], q, p, weights=True, shuffled=True)
    Lambda = root(rng, q)
    assert_totals(data.totals(core, Lambda, kr=False), data.reference().totals(Lambda), 1e-11)


@cores
@pytest.mark.parametrize("m", [1, 7, 8, 9, 16, 65])
def test_every_number_of_clusters(core, m):
    rng = np.random.default_rng(m)
    data = sample(rng, rng.integers(1, 6, m), 2, 2)
    Lambda = root(rng, 2)
    assert_totals(data.totals(core, Lambda), data.reference().totals(Lambda, True), 1e-12)


@cores
def test_totals_of_two_sets_of_clusters_add(core):
    rng = np.random.default_rng(2)
    data = sample(rng, MIXED_SIZES, 2, 3)
    cut = data.ptr[5]
    first = replace(data, X=data.X[:cut], Z=data.Z[:cut], y=data.y[:cut], ptr=data.ptr[:6])
    second = replace(data, X=data.X[cut:], Z=data.Z[cut:], y=data.y[cut:], ptr=data.ptr[5:] - cut)
    Lambda = root(rng, 2)
    parts: Totals = first.totals(core, Lambda) + second.totals(core, Lambda)
    assert_totals(parts, data.totals(core, Lambda), 1e-13)


@cores
@pytest.mark.parametrize("defect", ["zero", "twice", "combination", "constant twice", "one row"])
def test_rank_deficient_Z(core, defect):
    """Columns of Z_i that others determine, in short clusters and in long ones."""
    rng = np.random.default_rng(3)
    data = sample(rng, [3, 1, 50, 6, 300, 2, 33, 9, 4], 3, 2, shuffled=True)
    Z, rows = data.Z, data.order
    for i in range(0, 9, 2):
        here = rows[data.ptr[i] : data.ptr[i + 1]]
        if defect == "zero":
            Z[here] = 0.0
        elif defect == "twice":
            Z[here, 2] = Z[here, 1]
        elif defect == "combination":
            Z[here, 2] = 3.0 * Z[here, 0] - 0.1 * Z[here, 1]
        elif defect == "constant twice":
            Z[here, 1] = 0.7
        else:
            Z[here[1:]] = 0.0
    Lambda = root(rng, 3)
    assert_totals(data.totals(core, Lambda), data.reference().totals(Lambda, True), 1e-11)
    rank = sum(
        np.linalg.matrix_rank(Z[rows[a:b]])
        for a, b in zip(data.ptr[:-1], data.ptr[1:], strict=True)
    )
    assert data.compressed(core)[1].rank_Z == rank


@cores
@pytest.mark.parametrize("p", [3, 13])
def test_singular_Lambda(core, p):
    rng = np.random.default_rng(4)
    data = sample(rng, MIXED_SIZES, 3, p)
    for Lambda in (
        np.zeros((3, 3)),
        np.outer([1.0, -2.0, 0.5], [1.0, 0.0, 0.0]),
        np.diag([0.0, 1.0, 0.0]),
    ):
        assert_totals(data.totals(core, Lambda), data.reference().totals(Lambda, True), 1e-12)


def exact_totals(data, Lambda):
    """logdet, trace, gram and quad in 60 digits."""
    q, p1 = data.q, data.p1
    with mpmath.workdps(60):
        D = mpmath.matrix(Lambda.tolist())
        D = D * D.T
        A_all = mpmath.matrix(np.column_stack([data.X, data.y]).tolist())
        Z_all = mpmath.matrix(data.Z.tolist())
        logdet, trace = mpmath.mpf(0), []
        gram, quad = mpmath.zeros(p1), []
        column, row = np.triu_indices(q)
        trace = [mpmath.mpf(0)] * len(row)
        quad = [mpmath.zeros(p1) for _ in row]
        for a, b in zip(data.ptr[:-1], data.ptr[1:], strict=True):
            A, Z = A_all[int(a) : int(b), :], Z_all[int(a) : int(b), :]
            V = Z * D * Z.T + mpmath.eye(int(b - a))
            V_inv = V**-1
            logdet += mpmath.log(mpmath.det(V))
            gram += A.T * V_inv * A
            for k, (i, j) in enumerate(zip(row, column, strict=True)):
                E = mpmath.zeros(q)
                E[int(i), int(j)] = E[int(j), int(i)] = 1
                V_inv_dV = V_inv * Z * E * Z.T
                trace[k] += sum(V_inv_dV[r, r] for r in range(V_inv_dV.rows))
                quad[k] += A.T * V_inv_dV * V_inv * A

        def floats(matrix):
            return np.array([[float(x) for x in matrix[r, :]] for r in range(matrix.rows)])

        return (
            float(logdet),
            np.array([float(t) for t in trace]),
            floats(gram),
            np.array([floats(one) for one in quad]),
        )


@cores
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("size", [1e-150, 1e-8, 1e-3, 1.0, 1e3, 1e6])
def test_tiny_and_large_Lambda(core, size, rank):
    """Against 60 digits: dense double precision loses size**2 in V, the engine must not.

    Where D is singular the second pivot of I + FF' cancels, and eps size**2 is lost after all.
    """
    rng = np.random.default_rng(5)
    data = sample(rng, [1, 2, 6, 4], 2, 2)
    Lambda = size * (root(rng, 2) if rank == 2 else np.array([[1.0, 0.0], [0.7, 0.0]]))
    got = data.totals(core, Lambda)
    logdet, trace, gram, quad = exact_totals(data, Lambda)
    tolerance = 1e-11 if rank == 2 else max(1e-11, 1e-14 * size**2)
    assert got.logdet == pytest.approx(logdet, rel=tolerance, abs=1e-14)
    if tolerance > 1e-3:
        return
    for a, b in ((got.trace, trace), (got.gram, gram), (got.quad, quad)):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@cores
@pytest.mark.parametrize("size", [1e6, 1e12, 1e30])
def test_huge_Lambda_has_a_limit(core, size):
    """Where V_i is singular but for rounding dense algebra ends: compare with the limit.

    log|V| grows like the rank times log(size**2), and A'V^-1 A goes to A'(I - QQ')A.
    """
    rng = np.random.default_rng(6)
    data = sample(rng, [2, 5, 40, 3, 300], 2, 3)
    Lambda = root(rng, 2)
    blocks, sums = data.compressed(core)
    big, bigger = (data.totals(core, s * Lambda) for s in (size, 10 * size))
    assert bigger.logdet - big.logdet == pytest.approx(2 * sums.rank_Z * np.log(10), rel=1e-9)
    np.testing.assert_allclose(big.gram, sums.perp, rtol=0, atol=1e-9 * np.abs(sums.perp).max())
    assert np.isfinite(blocks).all()
    for name in ("trace", "info", "quad", "kr"):
        assert np.isfinite(getattr(big, name)).all()


@cores
@pytest.mark.parametrize("p", [3, 13])
def test_same_bits_for_every_number_of_threads(core, p):
    rng = np.random.default_rng(7)
    sizes = np.append(rng.integers(1, 7, 3000), [400, 33])
    data = sample(rng, sizes, 2, p, weights=True, shuffled=True)
    Lambda = root(rng, 2)
    c = rng.standard_normal(p + 1)
    packed, sums = data.compressed(core, 1)
    totals = core.evaluate(packed, 2, p + 1, Lambda, sums.perp, True, 1)
    effects = core.random_effects(packed, 2, p + 1, len(sizes), Lambda, Lambda, c, 1)
    cov = core.random_effects_covariance(packed, 2, p + 1, len(sizes), Lambda, Lambda, 1)
    for n_threads in (2, 5):
        again, others = data.compressed(core, n_threads)
        np.testing.assert_array_equal(again, packed)
        for a, b in zip(others, sums, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(
            core.evaluate(packed, 2, p + 1, Lambda, sums.perp, True, n_threads), totals
        )
        arguments = (packed, 2, p + 1, len(sizes), Lambda, Lambda)
        np.testing.assert_array_equal(core.random_effects(*arguments, c, n_threads), effects)
        np.testing.assert_array_equal(core.random_effects_covariance(*arguments, n_threads), cov)


@pytest.mark.parametrize("q", [1, 2, 3, 6])
@pytest.mark.parametrize("p", [4, 20])
def test_instruction_sets_agree(q, p):
    rng = np.random.default_rng([q, p])
    data = sample(rng, np.append(rng.integers(1, 30, 200), 500), q, p, weights=True, offset=True)
    Lambda = root(rng, q)
    first, *others = (data.totals(core, Lambda, 2, kr=q < 4) for core in CORES)
    for other in others:
        assert_totals(other, first, 1e-12)


@cores
@pytest.mark.parametrize("q", [1, 2, 3, 5])
def test_random_effects(core, q):
    rng = np.random.default_rng(q)
    data = sample(rng, MIXED_SIZES, q, 2, weights=True, shuffled=True)
    c = rng.standard_normal(3)
    packed = data.compressed(core)[0]
    for Lambda in (root(rng, q), np.zeros((q, q)), np.diag(np.arange(q) / q)):
        other = rng.standard_normal((q, q))
        arguments = (packed, q, 3, len(MIXED_SIZES), Lambda, other)
        b = core.random_effects(*arguments, c, 2)
        var = core.random_effects_covariance(*arguments, 2)
        reference = data.reference()
        np.testing.assert_allclose(b, reference.random_effects(Lambda, other, c), atol=1e-12)
        np.testing.assert_allclose(var, reference.random_effects_cov(Lambda, other), atol=1e-12)


@cores
def test_columns_of_any_stride(core):
    """Fortran and C order, reversed views and constants of stride 0 are read in place."""
    rng = np.random.default_rng(8)
    data = sample(rng, MIXED_SIZES, 2, 2)
    strided = replace(
        data,
        X=np.asfortranarray(data.X),
        Z=np.broadcast_to(data.Z[::-1][::-1], data.Z.shape),
        y=np.repeat(data.y, 3)[::3],
    )
    Lambda = root(rng, 2)
    want = data.totals(core, Lambda)
    assert_totals(strided.totals(core, Lambda), want, 0.0)
    flipped = replace(
        data,
        X=data.X[::-1],
        Z=data.Z[::-1],
        y=data.y[::-1],
        order=np.arange(len(data.y))[::-1].copy(),
    )
    assert_totals(flipped.totals(core, Lambda), want, 0.0)


@cores
@pytest.mark.parametrize(("q", "p"), [(1, 1), (2, 4), (3, 15)])
def test_mixed_columns(core, q, p):
    """Columns mixed by the kernel are those mixed beforehand, in small and in large clusters."""
    rng = np.random.default_rng([q, p])
    data = sample(rng, [*MIXED_SIZES, 100], q, p, weights=True, shuffled=True)
    x_mix, z_mix = (np.triu(rng.standard_normal((k, k))) + 2 * np.eye(k) for k in (p, q))
    mixed = replace(data, X=data.X @ x_mix, Z=data.Z @ z_mix)
    blocks, sums = data.compressed(core, 1, x_mix, z_mix)
    want_blocks, want_sums = mixed.compressed(core)
    np.testing.assert_allclose(blocks, want_blocks, rtol=0, atol=1e-11 * np.abs(blocks).max())
    np.testing.assert_allclose(sums.gram, want_sums.gram, atol=1e-12 * np.abs(sums.gram).max())
    np.testing.assert_allclose(sums.perp, want_sums.perp, atol=1e-12 * np.abs(sums.gram).max())


def test_the_border_refuses_what_would_dangle_or_overflow():
    rng = np.random.default_rng(0)
    data = sample(rng, [3, 4], 1, 2)
    core = CORES[-1]
    packed, sums = data.compressed(core)
    for wrong in (data.X[:, 0].tolist(), data.X[:, 0].astype(np.complex128)):
        with pytest.raises(ValueError, match=r"columns must be numpy|must be float64"):
            replace_column(core, data, wrong)
    with pytest.raises(ValueError, match="p1 must lie"):
        core.evaluate(packed, 1, 2**31 - 1, np.eye(1), sums.perp, False, 1)
    with pytest.raises(ValueError, match="one-dimensional"):
        core.group_rows(np.zeros((2, 2), dtype=np.int64), 0, 1, 1)


def replace_column(core, data, column):
    """Hand over something else as the first column of X."""
    out = data.compressed(core)[0]
    zero, one, none = np.zeros(1), np.ones(1), None
    ptr, order = data.ptr, data.order
    return core.compress_rows(
        [column, data.X[:, 1]], [data.Z[:, 0]], data.y, none, none, ptr, order,
        np.zeros(2), np.ones(2), zero, one, none, none, 0.0, 1.0, np.zeros(2), out, 1,
    )  # fmt: skip
