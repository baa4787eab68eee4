"""The dense engine, every build of it, beside plain NumPy algebra of each pattern's V."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from residual_definitions import DISTANCE, TABLE, derivatives
from samples import LEVELS

cores = pytest.mark.parametrize("core", list(LEVELS.values()), ids=list(LEVELS))
n_lanes = pytest.mark.parametrize("L", [8, 1])
THREADS = (2, 5)


@dataclass(frozen=True)
class Bucket:
    """Patterns of n rows, ``L`` of them side by side; one covariance."""

    A: np.ndarray  # (N, reps, n, p1, L)
    Z: np.ndarray  # (N, n, q, L)
    counts: np.ndarray  # (N, L)
    inverse_root_weights: np.ndarray | None  # (N, n, L)
    G: np.ndarray | None  # (N, n, K_v, L)
    kappa: np.ndarray  # (K_v,)
    name: str | None  # of the correlation
    psi: np.ndarray
    where: np.ndarray | None  # coords (N, n, d, L) or positions (N, n, L)
    nu: float | None
    Lambda: np.ndarray  # (q, q)
    T: int = 7
    given: bool = False

    def correlation(self):
        """As the kernel takes it."""
        if self.name is None:
            return None
        if self.given:
            C = np.stack([[self.C(i, k, self.psi).real for k in self.lanes] for i in self.packs])
            dC = np.stack(
                [
                    [derivatives(lambda x: self.C(i, k, x), self.psi) for k in self.lanes]  # noqa: B023
                    for i in self.packs
                ]
            )
            axes = np.moveaxis(C, 1, -1), np.moveaxis(dC, 1, -1)
            return "given", *(np.ascontiguousarray(a) for a in axes)
        if self.name in DISTANCE:
            return "distance", self.name, self.where, self.psi[0]
        define = TABLE[self.name][0]
        C = np.ascontiguousarray(np.real(define(self.T, self.psi)))
        return "table", self.where, C, derivatives(lambda x: define(self.T, x), self.psi)

    @property
    def packs(self):
        return range(self.A.shape[0])

    @property
    def lanes(self):
        return range(self.A.shape[-1])

    def C(self, i, lane, psi):
        """Of one pattern, for complex psi as well."""
        at = self.where[i, ..., lane]
        if self.name in DISTANCE:
            d = np.linalg.norm(at[:, None] - at[None], axis=-1)
            return DISTANCE[self.name](d, psi[0])
        return TABLE[self.name][0](self.T, psi)[np.ix_(at, at)]

    def R(self, i, lane, kappa, psi, nu):
        n = self.A.shape[2]
        s = np.ones(n) if self.G is None else np.exp(self.G[i, ..., lane] @ kappa)
        if self.inverse_root_weights is not None:
            s = s * self.inverse_root_weights[i, :, lane]
        C = np.eye(n) if self.name is None else self.C(i, lane, psi)
        P = C if self.nu is None else (1 - nu) * C + nu * np.eye(n)
        return s[:, None] * s * P

    def V(self, i, lane):
        F = self.Z[i, ..., lane] @ self.Lambda
        return F @ F.T + self.R(i, lane, self.kappa, self.psi, self.nu).real

    def dV(self, i, lane):
        """By vech(D), then by complex steps of R: (K, n, n)."""
        Z = self.Z[i, ..., lane]
        q, n_v, n_c = Z.shape[1], len(self.kappa), len(self.psi)
        by_D = [
            (np.outer(Z[:, a], Z[:, b]) + np.outer(Z[:, b], Z[:, a])) / (1 + (a == b))
            for a in range(q)
            for b in range(a, q)
        ]
        local = np.concatenate([self.kappa, self.psi, [] if self.nu is None else [self.nu]])

        def R(x):
            return self.R(i, lane, x[:n_v], x[n_v : n_v + n_c], x[-1] if self.nu is not None else 0)

        return np.array([*by_D, *derivatives(R, local)]).reshape(-1, len(Z), len(Z))

    def totals(self, with_kr):
        """By definition, flat."""
        sums = None
        for i, lane in product(self.packs, self.lanes):
            count = self.counts[i, lane]
            if count == 0:
                continue
            V_inv = np.linalg.inv(self.V(i, lane))
            W = V_inv @ self.dV(i, lane)  # (K, n, n)
            A = self.A[i, ..., lane]  # (reps, n, p1)
            VA = V_inv @ A
            quad = np.einsum("rjx,kjl,rly->kxy", A, W, VA)
            parts = [
                np.array([count * np.linalg.slogdet(self.V(i, lane))[1]]),
                count * np.trace(W, axis1=1, axis2=2),
                count * np.einsum("kij,lji->kl", W, W) / 2,
                np.einsum("rjx,rjy->xy", A, VA),
                quad,
            ]
            if with_kr:
                parts.append(np.einsum("rax,kab,lbc,rcy->klxy", A, W, W, VA, optimize=True))
            sums = parts if sums is None else [s + p for s, p in zip(sums, parts, strict=True)]
        return sums

    def kernel(self, core, with_kr, n_threads=1):
        return core.dense_totals(
            self.A, self.Z, self.counts, *self.covariance(), with_kr, n_threads
        )

    def covariance(self):
        return (
            self.inverse_root_weights,
            self.G,
            self.kappa,
            self.correlation(),
            self.nu,
            self.Lambda,
        )


def bucket(name, n=5, q=1, p1=3, L=8, N=3, reps=2, weights=True, n_variance=2, nugget=True, **more):
    """Random patterns, the last one padding where there are lanes."""
    rng = np.random.default_rng([n, q, p1, L, N, reps])
    T = max(n, 7)
    psi, where = np.zeros(0), None
    if name in DISTANCE:
        psi = rng.uniform(-0.6, 0.7, 1)
        dims = 1 if name == "ar1" else 2
        where = rng.uniform(0, 4, (N, n, dims, L))
        if name == "ar1":
            where = rng.permuted(np.tile(np.arange(T * 1.0), (N, L, 1)), axis=-1)[..., :n]
            where = np.ascontiguousarray(np.moveaxis(where, 1, -1))[:, :, None]
    elif name is not None:
        psi = rng.uniform(-0.4, 0.4, TABLE[name][1](T))
        where = rng.permuted(np.tile(np.arange(T, dtype=np.int32), (N, L, 1)), axis=-1)[..., :n]
        where = np.ascontiguousarray(np.moveaxis(where, 1, -1))
    A = rng.standard_normal((N, reps, n, p1, L))
    counts = rng.integers(1, 4, (N, L)).astype(float)
    if L > 1:
        counts[-1:, -3:] = 0
        A[-1:, ..., -3:] = 0
    return Bucket(
        A,
        rng.standard_normal((N, n, q, L)),
        counts,
        rng.uniform(0.5, 2, (N, n, L)) if weights else None,
        rng.standard_normal((N, n, n_variance, L)) if n_variance else None,
        rng.uniform(-0.5, 0.5, n_variance),
        name,
        psi,
        where,
        0.3 if nugget and name is not None else None,
        np.tril(rng.uniform(0.3, 1.0, (q, q))),
        T,
        **more,
    )


def parts(flat, like):
    """A flat buffer cut like a list of arrays."""
    ends = np.cumsum([a.size for a in like])
    assert flat.size == ends[-1]
    return [x.reshape(a.shape) for x, a in zip(np.split(flat, ends[:-1]), like, strict=True)]


def check(core, data, with_kr=True, tolerance=1e-11):
    want = data.totals(with_kr)
    flat, failed = data.kernel(core, with_kr)
    assert failed == -1
    for got, expected in zip(parts(flat, want), want, strict=True):
        scale = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale)


@cores
@n_lanes
@pytest.mark.parametrize("q", [0, 1, 2])
@pytest.mark.parametrize("name", [None, *DISTANCE, *TABLE])
def test_every_structure(core, name, q, L):
    check(core, bucket(name, q=q, L=L))
    if name is not None:
        check(core, bucket(name, q=q, L=L, nugget=False, n_variance=0, weights=False), False)
        check(core, replace(bucket(name, q=q, L=L), given=True))


@cores
@n_lanes
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("n_variance", [0, 1, 3])
@pytest.mark.parametrize("nugget", [False, True])
@pytest.mark.parametrize("with_kr", [False, True])
def test_every_part(core, L, weights, n_variance, nugget, with_kr):
    for name in ("exponential", "unstructured", None):
        data = bucket(name, 4, 2, 4, L, weights=weights, n_variance=n_variance, nugget=nugget)
        check(core, data, with_kr)


@cores
@n_lanes
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 8, 9, 13, 17, 24])
@pytest.mark.parametrize("p1", [1, 2, 5, 8, 11])
def test_every_size(core, n, p1, L):
    check(core, bucket("exponential", n, 1, p1, L, N=2, reps=1))
    check(core, bucket("gaussian", n, 3, p1, L, N=1, reps=3), tolerance=1e-10)


@cores
@pytest.mark.parametrize("n", [60, 150])
@pytest.mark.parametrize("name", ["matern52", "ar1", "banded_toeplitz"])
def test_large_patterns(core, n, name):
    check(core, bucket(name, n, 2, 4, 1, N=2, n_variance=1))


@cores
@n_lanes
def test_threads_agree_to_the_last_bit(core, L):
    # many patterns, and many clusters of one pattern
    for N, reps in ((400, 1), (150, 3), (2, 3000)):
        if L == 1:
            N = min(N, 150)
        data = bucket("matern32", 6, 1, 3, L, N, reps)
        flat, failed = data.kernel(core, True)
        assert failed == -1
        for n_threads in THREADS:
            again, _ = data.kernel(core, True, n_threads)
            np.testing.assert_array_equal(again, flat)
    check(core, bucket("matern32", 6, 1, 3, L, 60, 1))
    check(core, bucket("matern32", 6, 1, 3, L, 2, 3000))


@cores
@n_lanes
def test_size_of_numbers(core, L):
    # determinants far below and above what a double holds; 24 rows
    for scale in (1e-100, 1e-20, 1e20, 1e100):
        data = bucket("exponential", 24, 1, 2, L, N=1, reps=1, n_variance=0)
        data = replace(
            data,
            inverse_root_weights=scale * data.inverse_root_weights,
            Lambda=scale * data.Lambda,
        )
        flat, failed = data.kernel(core, False)
        assert failed == -1
        V = [data.V(0, lane) / scale**2 for lane in data.lanes]
        logdet = [np.linalg.slogdet(v)[1] + 48 * np.log(scale) for v in V]
        np.testing.assert_allclose(flat[0], data.counts[0] @ logdet, rtol=1e-12)


@cores
@n_lanes
@pytest.mark.parametrize("n_threads", [1, 3])
def test_not_positive_definite(core, L, n_threads):
    data = bucket("banded_toeplitz", 5, 1, 3, L, 100, 1, n_variance=0, nugget=False)
    # rho_1 = 0.9, rho_2 = 0: positive definite for pairs of neighbours, not for three in a row
    where = np.empty_like(data.where)
    where[:] = np.array([0, 3, 6, 1, 4])[None, :, None]
    data = replace(data, where=where, psi=np.array([1.5, 0.0]), Lambda=np.zeros((1, 1)))
    assert data.kernel(core, False, n_threads)[1] == -1
    for pack in (70, 90):
        where[pack, :, L // 2] = [0, 1, 2, 4, 6]
    flat, failed = data.kernel(core, False, n_threads)
    assert failed == 70 * L + L // 2
    assert np.isnan(flat).all()
    # but not where nothing has the pattern
    data.counts[[70, 90], L // 2] = 0
    data.A[[70, 90], ..., L // 2] = 0
    flat, failed = data.kernel(core, False, n_threads)
    if L == 1:
        assert failed == -1
        assert np.isfinite(flat).all()


@cores
@n_lanes
def test_not_finite(core, L):
    data = bucket("exponential", 5, 1, 3, L, 3, 1, n_variance=1)
    for change in (
        {"kappa": np.array([np.nan])},
        {"kappa": np.array([1e4])},
        {"psi": np.array([np.nan])},
        {"Lambda": np.array([[np.inf]])},
        {"nu": np.nan},
    ):
        flat, failed = replace(data, **change).kernel(core, False)
        assert failed == 0
        assert np.isnan(flat).all()


@cores
@n_lanes
@pytest.mark.parametrize("q", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [1, 5, 11])
@pytest.mark.parametrize("name", [None, "gaussian", "toeplitz"])
def test_predictions(core, name, n, q, L):
    data = bucket(name, n, q, 3, L)
    rng = np.random.default_rng(q)
    root, c = rng.standard_normal((q, q)), rng.standard_normal(3)
    covariance = data.covariance()
    b = core.dense_effects(data.A, data.Z, *covariance, root, c, 1)
    cov = core.dense_effects_cov(data.Z, *covariance, root, 1)
    white = core.dense_whitened(data.A, data.Z, *covariance, c, 1)
    assert b.shape == (3, 2, q, L)
    assert cov.shape == (3, q, q, L)
    assert white.shape == (3, 2, n, L)
    for i, lane in product(data.packs, data.lanes):
        V, ZL = data.V(i, lane), data.Z[i, ..., lane] @ data.Lambda
        r = data.A[i, ..., lane] @ c  # (reps, n)
        near = {"rtol": 1e-10, "atol": 1e-10}
        want = np.linalg.solve(V, r.T).T @ ZL @ root.T
        np.testing.assert_allclose(b[i, ..., lane], want, **near)
        want = root @ (np.eye(q) - ZL.T @ np.linalg.solve(V, ZL)) @ root.T
        np.testing.assert_allclose(cov[i, ..., lane], want, **near)
        want = np.linalg.solve(np.linalg.cholesky(V), r.T).T
        np.testing.assert_allclose(white[i, ..., lane], want, **near)
    for n_threads in THREADS:
        again = core.dense_effects(data.A, data.Z, *covariance, root, c, n_threads)
        np.testing.assert_array_equal(again, b)
        again = core.dense_effects_cov(data.Z, *covariance, root, n_threads)
        np.testing.assert_array_equal(again, cov)
        again = core.dense_whitened(data.A, data.Z, *covariance, c, n_threads)
        np.testing.assert_array_equal(again, white)


@cores
@n_lanes
def test_predictions_without_a_factor(core, L):
    data = bucket("banded_toeplitz", 3, 1, 3, L, 2, 1, n_variance=0, nugget=False)
    where = np.empty_like(data.where)
    where[:] = np.array([0, 3, 6])[None, :, None]
    where[1, :, -1] = [0, 1, 2]
    data = replace(data, where=where, psi=np.array([1.5, 0.0]), Lambda=np.zeros((1, 1)))
    covariance = data.covariance()
    for values in (
        core.dense_effects(data.A, data.Z, *covariance, np.eye(1), np.ones(3), 1),
        core.dense_effects_cov(data.Z, *covariance, np.eye(1), 1),
        core.dense_whitened(data.A, data.Z, *covariance, np.ones(3), 1),
    ):
        finite = np.isfinite(values).reshape(2, -1, L)
        assert not finite[1, :, -1].any()
        finite[1, :, -1] = True
        assert finite.all()


@cores
def test_no_patterns(core):
    data = bucket("exponential", N=0)
    flat, failed = data.kernel(core, True)
    assert failed == -1
    np.testing.assert_array_equal(flat, 0)


@cores
def test_wrong_shapes(core):
    data = bucket("exponential", 4, 2, 3, n_variance=1)
    table = bucket("toeplitz", 4, 2, 3, n_variance=1)

    def change(of, **fields):
        return replace(of, **fields).kernel(core, False)

    for name in ("A", "counts", "inverse_root_weights", "G"):
        with pytest.raises(ValueError, match=f"{name} must have the shape"):
            change(data, **{name: np.ascontiguousarray(getattr(data, name)[:-1])})
    with pytest.raises(ValueError, match=r"Lambda must have the shape \(2, 2\)"):
        change(data, Lambda=np.eye(3))
    with pytest.raises(ValueError, match="coords must have the shape"):
        change(data, where=data.where[:-1])
    with pytest.raises(ValueError, match="kappa needs G"):
        change(data, G=None)
    with pytest.raises(ValueError, match="nugget needs a correlation"):
        change(data, name=None)
    with pytest.raises(ValueError, match="positions must lie in 0"):
        change(table, where=table.where + 1)
    with pytest.raises(ValueError, match="1 or 8 lanes"):
        change(data, Z=np.ascontiguousarray(data.Z[..., :3]))
    with pytest.raises(ValueError, match="called ar2"):
        core.dense_totals(
            data.A, data.Z, data.counts, None, None, np.zeros(0),
            ("distance", "ar2", data.where, 0.0), None, data.Lambda, False, 1,
        )  # fmt: skip


def of_buckets(core, parts, with_kr, n_threads=1):
    first = parts[0]
    given = [(d.A, d.Z, d.counts, d.inverse_root_weights, d.G, d.correlation()) for d in parts]
    return core.dense_totals_of_buckets(
        given, first.kappa, first.nu, first.Lambda, with_kr, n_threads
    )


def parts_of_sizes():
    """Buckets of several sizes, one of them large enough for a factorisation by blocks."""
    shapes = [(2, 8, 3), (5, 8, 40), (9, 8, 70), (40, 1, 4)]
    first = bucket("exponential", n=shapes[0][0], L=8, N=3)
    same = {"kappa": first.kappa, "psi": first.psi, "nu": first.nu, "Lambda": first.Lambda}
    return [replace(bucket("exponential", n=n, L=L, N=N, reps=1), **same) for n, L, N in shapes]


@pytest.mark.parametrize("with_kr", [False, True])
@cores
def test_several_buckets_at_once(core, with_kr):
    parts = parts_of_sizes()
    found, failed = of_buckets(core, parts, with_kr)
    singly = [part.kernel(core, with_kr) for part in parts]
    assert failed == -1
    assert all(none == -1 for _, none in singly)
    np.testing.assert_allclose(found, sum(flat for flat, _ in singly), rtol=1e-11, atol=1e-9)
    for n_threads in (2, 3, 7):
        assert np.array_equal(of_buckets(core, parts, with_kr, n_threads)[0], found)


@cores
def test_the_bucket_that_fails_is_named(core):
    parts = parts_of_sizes()
    parts[2] = replace(parts[2], where=np.zeros_like(parts[2].where), nu=None)
    parts = [replace(part, nu=None) for part in parts]
    found, failed = of_buckets(core, parts, False, n_threads=2)
    assert failed == 2
    assert np.isnan(found).all()


@cores
def test_buckets_must_agree(core):
    parts = parts_of_sizes()
    parts[1] = replace(parts[1], A=np.ascontiguousarray(parts[1].A[..., :2, :]))
    with pytest.raises(ValueError, match="same columns of A and Z"):
        of_buckets(core, parts, False)
    with pytest.raises(ValueError, match="no buckets"):
        core.dense_totals_of_buckets([], np.zeros(0), None, np.eye(1), False, 1)
    strided = replace(parts[0], A=np.asfortranarray(parts[0].A))
    with pytest.raises(ValueError, match="C-contiguous"):
        of_buckets(core, [strided], False)
