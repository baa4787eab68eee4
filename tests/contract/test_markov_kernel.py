"""The Markov engine, every build of it, beside dense algebra: totals, random effects, residuals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mpmath
import numpy as np
import pytest
from samples import LEVELS

cores = pytest.mark.parametrize("core", list(LEVELS.values()), ids=list(LEVELS))
PROCESSES = ["ar1", "exponential"]
processes = pytest.mark.parametrize("name", PROCESSES)
# Single rows, rows fewer than random effects, and more columns of G than a register holds.
SIZES = [1, 7, 2, 30, 1, 3, 12, 5]


# Where there is no extended precision, dense algebra says less.
LOOSER = 1.0 if np.finfo(np.longdouble).eps < 1e-18 else 1e3


def extended(x) -> np.ndarray:
    """Extended precision, where there is any: dense algebra loses more digits than the engine."""
    return np.asarray(x, dtype=np.longdouble)


def cholesky(V: np.ndarray) -> np.ndarray:
    """NumPy's knows double precision only."""
    L = np.zeros_like(V)
    for j in range(len(V)):
        column = V[j:, j] - L[j:, :j] @ L[j, :j]
        L[j:, j] = column / np.sqrt(column[0])
    return L


def solve_lower(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    X = extended(B).copy()
    for j in range(len(L)):
        X[j] = (X[j] - L[j, :j] @ X[:j]) / L[j, j]
    return X


def correlation(name: str, distance: np.ndarray, psi: float) -> tuple[np.ndarray, np.ndarray]:
    """C and dC/dpsi, both (n, n), from their definitions."""
    if name == "exponential":
        x = distance * np.exp(-psi)
        return np.exp(-x), x * np.exp(-x)
    rho = np.tanh(psi)
    before = np.where(distance > 0, rho ** np.maximum(distance - 1, 0), 0.0)
    return rho**distance, distance * before * (1 - rho**2)


@dataclass(frozen=True)
class Case:
    """Rows of clusters and a point; everything of one cluster by dense algebra."""

    A: np.ndarray  # (n, p1)
    Z: np.ndarray  # (n, q)
    ptr: np.ndarray  # (m + 1,)
    times: np.ndarray  # (n,)
    inverse_root_weights: np.ndarray | None
    G: np.ndarray | None  # (n, K_v)
    kappa: np.ndarray  # (K_v,)
    name: str
    psi: float
    nu: float | None
    Lambda: np.ndarray  # (q, q)

    @property
    def arguments(self) -> tuple:
        lag = np.diff(self.times, prepend=0.0)
        lag[self.ptr[:-1][np.diff(self.ptr) > 0]] = -7.0  # is not to be read
        return (
            *(self.A, self.Z, self.ptr, lag, self.inverse_root_weights, self.G, self.kappa),
            *(self.name, self.psi, self.nu, self.Lambda),
        )

    @property
    def clusters(self) -> list[slice]:
        return [slice(a, b) for a, b in zip(self.ptr[:-1], self.ptr[1:], strict=True)]

    def V_and_dV(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """V (n_i, n_i) and its derivatives (K, n_i, n_i) by vech(D), kappa, psi, nu."""
        Z, times = extended(self.Z[rows]), extended(self.times[rows])
        s = np.ones_like(times)
        if self.inverse_root_weights is not None:
            s = extended(self.inverse_root_weights[rows])
        if self.G is not None:
            s = s * np.exp(extended(self.G[rows]) @ self.kappa)
        ss, nu, eye = np.outer(s, s), extended(self.nu or 0.0), np.eye(len(times))
        C, dC = correlation(self.name, np.abs(times[:, None] - times), extended(self.psi))
        R = ss * ((1 - nu) * C + nu * eye)
        dV = []
        q = Z.shape[1]
        for b in range(q):
            for a in range(b, q):
                E = extended(np.zeros((q, q)))
                E[a, b] = E[b, a] = 1.0
                dV.append(Z @ E @ Z.T)
        for k in range(len(self.kappa)):
            g = self.G[rows, k]
            dV.append(R * (g[:, None] + g))
        dV.append((1 - nu) * ss * dC)
        if self.nu is not None:
            dV.append(ss * (eye - C))
        return Z @ self.Lambda @ self.Lambda.T @ Z.T + R, np.array(dV)

    def dense_totals(self, with_kr: bool) -> np.ndarray:
        parts = []
        for rows in self.clusters:
            V, dV = self.V_and_dV(rows)
            if not len(V):
                continue
            L = cholesky(V)
            A, S = solve_lower(L, self.A[rows]), [solve_lower(L, solve_lower(L, d).T) for d in dV]
            SA = S @ A
            totals = [
                [2 * np.log(np.diag(L)).sum()],
                np.einsum("kjj->k", S),
                0.5 * np.einsum("kij,lij->kl", S, S),
                A.T @ A,
                np.einsum("ja,kjb->kab", A, SA),
            ]
            if with_kr:
                totals.append(np.einsum("kja,ljb->klab", SA, SA))
            parts.append(np.concatenate([np.ravel(part) for part in totals]))
        return np.sum(parts, axis=0)

    def fields(self, flat: np.ndarray, with_kr: bool) -> dict[str, np.ndarray]:
        q, p1 = self.Z.shape[1], self.A.shape[1]
        K = q * (q + 1) // 2 + len(self.kappa) + 1 + (self.nu is not None)
        shapes = {
            "logdet": (),
            "trace": (K,),
            "info": (K, K),
            "gram": (p1, p1),
            "quad": (K, p1, p1),
            **({"kr": (K, K, p1, p1)} if with_kr else {}),
        }
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        assert sum(sizes) == len(flat)
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}

    def assert_totals(self, core, with_kr: bool = True, tolerance: float = 1e-11) -> None:
        got, failed = core.markov_totals(*self.arguments, with_kr, 1)
        assert failed == -1
        got = self.fields(got, with_kr)
        want = self.fields(self.dense_totals(with_kr), with_kr)
        assert_close(got, want, tolerance * LOOSER, len(self.times))


def assert_close(got: dict, want: dict, tolerance: float, n: int) -> None:
    """Every parameter on its own scale: tr(S_k)^2 <= n tr(S_k^2), S_k = L^-1 dV_k L^-T."""
    by_info = np.sqrt(np.diag(want["info"]))
    for name, value in want.items():
        size = np.abs(value).max(axis=(-2, -1), keepdims=True) if value.ndim > 1 else n
        size = {"trace": np.sqrt(2 * n) * by_info, "info": np.outer(by_info, by_info)}.get(
            name, size
        )
        assert np.all(np.abs(got[name] - value) <= tolerance * size + 1e-300), name


def case(
    name: str,
    q: int = 1,
    p1: int = 3,
    K_v: int = 0,
    weights: bool = False,
    nu: float | None = None,
    psi: float = 0.4,
    sizes=SIZES,
    seed: int = 0,
) -> Case:
    rng = np.random.default_rng([seed, q, p1, K_v])
    ptr = np.r_[0, np.cumsum(sizes)].astype(np.int64)
    n = ptr[-1]
    gaps = rng.integers(1, 4, n) if name == "ar1" else rng.exponential(0.7, n)
    Z = rng.standard_normal((n, q))
    Z[:, :1] = 1.0
    return Case(
        A=rng.standard_normal((n, p1)),
        Z=Z,
        ptr=ptr,
        times=np.cumsum(gaps).astype(float),
        inverse_root_weights=rng.uniform(0.5, 2.0, n) if weights else None,
        G=rng.uniform(-1.0, 1.0, (n, K_v)) if K_v else None,
        kappa=rng.uniform(-0.5, 0.5, K_v),
        name=name,
        psi=psi,
        nu=nu,
        Lambda=np.tril(rng.uniform(0.3, 1.0, (q, q))),
    )


@cores
@processes
@pytest.mark.parametrize("nu", [None, 0.0, 1e-6, 0.3, 0.999])
@pytest.mark.parametrize("q", [0, 1, 2, 3])
def test_random_effects_and_nugget(core, name, nu, q):
    case(name, q=q, nu=nu).assert_totals(core, with_kr=q != 1)


@cores
@processes
@pytest.mark.parametrize("K_v", [1, 3])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("nu", [None, 0.2])
def test_variance_model(core, name, K_v, weights, nu):
    for q in (0, 2):
        case(name, q=q, K_v=K_v, weights=weights, nu=nu).assert_totals(core)
    if weights:
        case(name, weights=True, nu=nu).assert_totals(core)


@cores
@pytest.mark.parametrize("p1", [1, 5, 6, 7, 8, 9, 16, 20])
@pytest.mark.parametrize("with_kr", [False, True])
def test_every_number_of_columns(core, p1, with_kr):
    """Both sides of the edges of a panel of eight."""
    for q in (0, 2, 3):
        case("exponential", q=q, p1=p1, K_v=1, nu=0.1).assert_totals(core, with_kr)


@cores
@pytest.mark.parametrize("with_kr", [False, True])
def test_more_random_effects_than_a_panel_holds(core, with_kr):
    case("exponential", q=10, p1=3, nu=0.1, sizes=[40, 3, 25]).assert_totals(core, with_kr)


@cores
@pytest.mark.parametrize("psi", [-1.5, -0.3, -1e-9, 0.0, 1e-9, 0.3, 1.5, 2.5])
@pytest.mark.parametrize("nu", [None, 0.1])
def test_autoregression_of_either_sign(core, psi, nu):
    case("ar1", q=2, psi=psi, nu=nu).assert_totals(core)


@cores
@pytest.mark.parametrize("psi", [-700.0, -8.0, -1.0, 1.0, 3.0])
@pytest.mark.parametrize("nu", [None, 0.1])
def test_ranges_short_and_long(core, psi, nu):
    case("exponential", q=2, psi=psi, nu=nu).assert_totals(core)


def exact_totals(some: Case) -> dict[str, np.ndarray]:
    """To many digits: OU and perhaps a nugget, no weights and no variance model."""
    totals: dict[str, np.ndarray] = {}
    with mpmath.workdps(80):
        for rows in some.clusters:
            times = [mpmath.mpf(t) for t in some.times[rows]]
            Z, A, Lambda = (
                mpmath.matrix(x.tolist()) for x in (some.Z[rows], some.A[rows], some.Lambda)
            )
            nu, eye, n = mpmath.mpf(some.nu or 0), mpmath.eye(len(times)), len(times)
            length = mpmath.exp(some.psi)
            x = mpmath.matrix([[abs(s - t) / length for t in times] for s in times])
            C = x.apply(lambda d: mpmath.exp(-d))
            dC = x.apply(lambda d: d * mpmath.exp(-d))
            dV = [Z * Z.T, (1 - nu) * dC] + ([eye - C] if some.nu is not None else [])
            V = Z * Lambda * Lambda.T * Z.T + (1 - nu) * C + nu * eye
            V_inv = V**-1
            V_inv_dV = [V_inv * d for d in dV]
            product = [[S * T for T in V_inv_dV] for S in V_inv_dV]
            of_cluster = {
                "logdet": mpmath.log(mpmath.det(V)),
                "trace": [sum(S[j, j] for j in range(n)) for S in V_inv_dV],
                "info": [[sum(P[j, j] for j in range(n)) / 2 for P in row] for row in product],
                "gram": (A.T * V_inv * A).tolist(),
                "quad": [(A.T * S * V_inv * A).tolist() for S in V_inv_dV],
            }
            for name, value in of_cluster.items():
                totals[name] = totals.get(name, 0) + np.array(value, dtype=object)
    return {name: np.array(value, dtype=float) for name, value in totals.items()}


@cores
@pytest.mark.parametrize("psi", [8.0, 16.0, 24.0])
@pytest.mark.parametrize("nu", [None, 1e-8, 0.3])
def test_rows_that_nearly_repeat_each_other(core, psi, nu):
    """Digits that dense algebra in double precision loses."""
    some = case("exponential", q=1, p1=2, psi=psi, nu=nu, sizes=[1, 6, 2, 4])
    got = some.fields(core.markov_totals(*some.arguments, False, 1)[0], False)
    assert_close(got, exact_totals(some), 1e-10, len(some.times))


@cores
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_large_random_effects(core, size):
    some = case("exponential", q=1, p1=2, nu=0.3, sizes=[1, 6, 2, 4])
    some = replace(some, Lambda=np.array([[size]]))
    got = some.fields(core.markov_totals(*some.arguments, False, 1)[0], False)
    assert_close(got, exact_totals(some), 1e-12, len(some.times))


@cores
@processes
@pytest.mark.parametrize("nu", [0.01, 0.5])
def test_ties(core, name, nu):
    """Several rows at one time, which a nugget allows."""
    tied = case(name, q=2, K_v=1, nu=nu)
    tied = replace(tied, times=np.floor(tied.times / 3))
    assert np.any(np.diff(tied.times) == 0)
    tied.assert_totals(core)


@cores
def test_singular_Lambda_and_dependent_Z(core):
    some = case("exponential", q=3, nu=0.2)
    for Lambda in (np.zeros((3, 3)), np.diag([0.0, 1.0, 0.0]), np.outer([1.0, -2, 0.5], [1, 0, 0])):
        replace(some, Lambda=Lambda).assert_totals(core)
    Z = some.Z.copy()
    Z[:, 2] = 2.0 * Z[:, 0] - Z[:, 1]
    replace(some, Z=Z).assert_totals(core)
    Z[::2] = 0.0
    replace(some, Z=Z).assert_totals(core)


@cores
def test_empty_clusters_add_nothing(core):
    some = case("exponential", q=1, nu=0.2)
    ptr = np.sort(np.r_[some.ptr, some.ptr[:4], 0])
    got, _ = core.markov_totals(*replace(some, ptr=ptr).arguments, True, 1)
    want, _ = core.markov_totals(*some.arguments, True, 1)
    np.testing.assert_array_equal(got, want)


@cores
def test_same_bits_for_any_number_of_threads(core):
    for sizes in (np.random.default_rng(3).integers(1, 9, 4000), [20000, 3, 15000, 9000, 1]):
        some = case("exponential", q=2, K_v=1, nu=0.1, weights=True, sizes=sizes)
        model, root, c = some.arguments, some.Lambda, np.array([-0.2, 0.4, 1.0])
        one, *more = (
            (
                core.markov_totals(*model, True, n_threads)[0],
                core.markov_effects(*model, root, c, n_threads),
                core.markov_effects_cov(*model, root, n_threads),
                core.markov_whitened(*model, c, n_threads),
            )
            for n_threads in (1, 2, 5)
        )
        for other in more:
            for got, want in zip(other, one, strict=True):
                np.testing.assert_array_equal(got, want)


@cores
@processes
@pytest.mark.parametrize("nu", [None, 0.2])
@pytest.mark.parametrize("q", [0, 1, 3])
def test_effects_and_residuals(core, name, nu, q):
    some = case(name, q=q, K_v=1, weights=True, nu=nu)
    rng = np.random.default_rng(4)
    root, c = rng.standard_normal((q, q)), rng.standard_normal(some.A.shape[1])
    b = core.markov_effects(*some.arguments, root, c, 1)
    covariance = core.markov_effects_cov(*some.arguments, root, 1)
    whitened = core.markov_whitened(*some.arguments, c, 1)
    for i, rows in enumerate(some.clusters):
        L = cholesky(some.V_and_dV(rows)[0])
        ZL = solve_lower(L, some.Z[rows] @ some.Lambda)
        want = solve_lower(L, some.A[rows] @ c)
        np.testing.assert_allclose(whitened[rows], want, rtol=0, atol=1e-12)
        np.testing.assert_allclose(b[i], root @ ZL.T @ want, rtol=0, atol=1e-12)
        want = root @ (np.eye(q) - ZL.T @ ZL) @ root.T
        np.testing.assert_allclose(covariance[i], want, rtol=0, atol=1e-12)


@cores
@pytest.mark.parametrize("with_nugget", [False, True])
def test_what_has_no_inverse_is_named(core, with_nugget):
    some = case("exponential", q=1, nu=0.0 if with_nugget else None)
    times = some.times.copy()
    row = some.ptr[6] + 4
    times[row] = times[row - 1]
    tied = replace(some, times=times)
    assert core.markov_totals(*tied.arguments, False, 1)[1] == 6
    for call in (
        lambda: core.markov_effects(*tied.arguments, tied.Lambda, np.ones(3), 1),
        lambda: core.markov_effects_cov(*tied.arguments, tied.Lambda, 1),
        lambda: core.markov_whitened(*tied.arguments, np.ones(3), 1),
    ):
        with pytest.raises(ValueError, match="V of cluster 6 is not positive definite"):
            call()


@cores
def test_what_is_no_lag_is_named(core):
    some = case("ar1", q=1, nu=0.1)
    for lag in (-1.0, 0.5, np.nan):
        arguments = list(some.arguments)
        arguments[3] = arguments[3].copy()
        arguments[3][some.ptr[3] + 2] = lag
        assert core.markov_totals(*arguments, False, 1)[1] == 3
    overflow = replace(case("exponential", K_v=1), kappa=np.array([1e5]))
    assert core.markov_totals(*overflow.arguments, False, 1)[1] >= 0


@cores
def test_shapes_are_checked(core):
    some = case("exponential", q=2, K_v=1, nu=0.1)
    model = dict(enumerate(some.arguments))
    for position, wrong in {
        1: some.Z[:-1].copy(),
        2: some.ptr[:-1].copy(),
        3: some.times[:-1].copy(),
        5: None,
        6: np.zeros(2),
        7: "gaussian",
        9: 1.0,
        10: np.eye(3),
    }.items():
        with pytest.raises(ValueError):
            core.markov_totals(*(model | {position: wrong}).values(), False, 1)
