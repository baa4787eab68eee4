"""What must not change the answer does not; and no digits are lost, against 50-digit arithmetic."""

import mpmath
import numpy as np
import pandas as pd
import polars as pl
import pytest
from exact import DIGITS, exact_fit, exact_matrix

import lmmfast

REML = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
N_GROUPS = 12


class Data:
    """A small longitudinal data set; ``x`` is standard normal."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        sizes = rng.integers(2, 6, N_GROUPS)
        self.groups = np.repeat(np.arange(N_GROUPS), sizes)
        n = len(self.groups)
        self.ones = np.ones(n)
        self.x = rng.standard_normal(n)
        self.b = rng.standard_normal((N_GROUPS, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]])
        self.noise = 0.5 * rng.standard_normal(n)
        self.half = np.arange(n) % 2 == 0

    def response(self, x):
        b = self.b[self.groups]
        return 1.0 + 0.5 * x + b[:, 0] + b[:, 1] * x + self.noise

    def design(self, x):
        return np.column_stack([self.ones, x])


@pytest.fixture(scope="module")
def data():
    return Data()


def assert_same(fit, other, tolerance=1e-9):
    """Same likelihood, coefficients, variances, random effects."""
    assert fit.llf == pytest.approx(other.llf, rel=1e-12)
    np.testing.assert_allclose(fit.params, other.params, rtol=tolerance)
    np.testing.assert_allclose(fit.bse, other.bse, rtol=tolerance)
    np.testing.assert_allclose(fit.theta, other.theta, rtol=tolerance)
    np.testing.assert_allclose(fit.theta_se, other.theta_se, rtol=tolerance)
    np.testing.assert_allclose(fit.random_effects, other.random_effects, rtol=0, atol=tolerance)


# -- the order of the rows and the names of the groups ---------------------------------------------


def test_order_of_rows(data):
    y, X = data.response(data.x), data.design(data.x)
    fit = lmmfast.fit(y, X, data.groups, X)
    rng = np.random.default_rng(1)
    for rows in (rng.permutation(len(y)), np.argsort(data.x), np.arange(len(y))[::-1]):
        other = lmmfast.fit(y[rows], X[rows], data.groups[rows], X[rows])
        assert_same(fit, other)
        np.testing.assert_allclose(other.fittedvalues, fit.fittedvalues[rows], rtol=1e-9)


LABELS = {
    "int8": lambda g: g.astype(np.int8),
    "uint64": lambda g: g.astype(np.uint64) + np.uint64(2**63),
    "negative": lambda g: g - 100,
    "float": lambda g: g / 7.0,
    "text": lambda g: np.array([f"id {k:03d}" for k in g]),
    "objects": lambda g: np.array([f"id {k:03d}" for k in g], dtype=object),
    "bytes of two lengths": lambda g: np.array([chr(97 + k) * (1 + k // 6) for k in g]),
    "categorical": lambda g: pd.Categorical.from_codes(g + 1, [f"c{k:02d}" for k in range(20)]),
    "series": lambda g: pd.Series(g + 5, index=np.arange(len(g))[::-1]),
    "polars": lambda g: pl.Series("g", [f"c{k:02d}" for k in g]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_groups(data, kind):
    """Any labels in the same order, whatever their type; 0-row categories do no harm."""
    y, X = data.response(data.x), data.design(data.x)
    other = lmmfast.fit(y, X, LABELS[kind](data.groups), X)
    assert_same(lmmfast.fit(y, X, data.groups, X), other)
    assert len(other.random_effects) == N_GROUPS


def test_relabelling_only_reorders_the_random_effects(data):
    y, X = data.response(data.x), data.design(data.x)
    new = np.random.default_rng(2).permutation(N_GROUPS)
    fit = lmmfast.fit(y, X, data.groups, X)
    other = lmmfast.fit(y, X, new[data.groups], X)
    assert other.llf == pytest.approx(fit.llf, rel=1e-12)
    np.testing.assert_allclose(other.theta, fit.theta, rtol=1e-9)
    np.testing.assert_allclose(other.random_effects.loc[new], fit.random_effects, rtol=0, atol=1e-9)


def test_kinds_of_arrays(data):
    """Order in memory, dtype and table do not matter."""
    x = np.round(4 * data.x)
    y, X = data.response(x), data.design(x)
    fit = lmmfast.fit(y, X, data.groups, X)
    wide = np.zeros((len(y), 7))
    wide[:, [1, 4]] = X
    for other in (
        np.asfortranarray(X),
        wide[:, [1, 4]],
        wide[:, 1::3],
        X.astype(np.int32),
        X.astype(np.float32),
        pd.DataFrame(X, columns=["one", "x"]),
        pl.DataFrame(X, schema=["one", "x"]),
    ):
        assert_same(fit, lmmfast.fit(y, other, data.groups, other))


def test_engines(data):
    y, X = data.response(data.x), data.design(data.x)
    weights = np.random.default_rng(3).uniform(0.2, 5.0, len(y))
    fits = [
        lmmfast.fit(y, X, data.groups, X, weights=weights, engine=engine)
        for engine in ("moments", "reference")
    ]
    assert_same(*fits, tolerance=1e-8)


def test_weights_scale_with_sigma2(data):
    """Weights times c leave everything but sigma2 alone, which is multiplied by c."""
    y, X = data.response(data.x), data.design(data.x)
    weights = np.random.default_rng(3).uniform(0.2, 5.0, len(y))
    fit = lmmfast.fit(y, X, data.groups, X, weights=weights)
    for c in (1e-100, 3.0, 1e100):
        other = lmmfast.fit(y, X, data.groups, X, weights=c * weights)
        assert other.llf == pytest.approx(fit.llf, rel=1e-11)
        assert other.scale == pytest.approx(c * fit.scale, rel=1e-9)
        np.testing.assert_allclose(other.params, fit.params, rtol=1e-9)
        np.testing.assert_allclose(other.cov_re, fit.cov_re, rtol=1e-8)


def test_offset_moves_the_response(data):
    y, X = data.response(data.x), data.design(data.x)
    offset = np.random.default_rng(4).standard_normal(len(y))
    assert_same(
        lmmfast.fit(y - offset, X, data.groups, X),
        lmmfast.fit(y, X, data.groups, X, offset=offset),
    )


# -- units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [-150, -100, -12, 3, 12, 100, 150])
@pytest.mark.parametrize("what", ["y", "X", "Z", "x", "all"])
@REML
def test_units(data, what, power, reml):
    """Powers of ten of y, of X, of Z, of the covariate in both, of everything."""
    c = 10.0**power
    y, X, Z = data.response(data.x), data.design(data.x), data.design(data.x)
    fit = lmmfast.fit(y, X, data.groups, Z, reml=reml)
    if what in ("y", "all"):
        y = c * y
    if what in ("X", "all"):
        X = c * X
    if what in ("Z", "all"):
        Z = c * Z
    if what == "x":
        X = Z = data.design(c * data.x)
    other = lmmfast.fit(y, X, data.groups, Z, reml=reml)
    with mpmath.workdps(DIGITS):
        beta_unit = {"y": [c, c], "X": [1 / c, 1 / c], "x": [1.0, 1 / c]}.get(what, [1.0, 1.0])
        np.testing.assert_allclose(other.params, fit.params * beta_unit, rtol=1e-8)
        np.testing.assert_allclose(other.bse, fit.bse * beta_unit, rtol=1e-7)
        sigma = c if what in ("y", "all") else 1.0
        assert other.sigma == pytest.approx(sigma * fit.sigma, rel=1e-7)
        llf, beta = exact_fit(
            y, X, Z, data.groups, other.cov_re.to_numpy(), mpmath.mpf(other.scale), reml
        )
        assert abs(other.llf - llf) <= 1e-11 * abs(llf)
        assert (
            max(abs((a - b) / b) for a, b in zip(other.params.to_numpy(), beta, strict=True))
            <= 1e-13
        )


@pytest.mark.parametrize("shift", [1e3, 1e6, 1e8, -1e10])
@pytest.mark.parametrize("route", ["arrays", "formula"])
@REML
def test_shifted_covariate(data, shift, route, reml):
    """A covariate such as 1e6 + noise costs no digits, in X and in Z.

    D at the user's origin holds shift**2: it is made in 50 digits from that of the centred fit.
    """
    x = data.x + shift
    centred = x - shift  # exact: both ends are doubles of nearly the same size
    y = data.response(centred)
    at_zero = lmmfast.fit(y, data.design(centred), data.groups, data.design(centred), reml=reml)
    if route == "arrays":
        fit = lmmfast.fit(y, data.design(x), data.groups, data.design(x), reml=reml)
    else:
        frame = pd.DataFrame({"y": y, "x": x, "g": data.groups})
        fit = lmmfast.lmm("y ~ x + (x | g)", frame, reml=reml)
    assert fit.llf == pytest.approx(at_zero.llf, rel=1e-13)
    np.testing.assert_allclose(
        fit.random_effects.to_numpy()[:, 1], at_zero.random_effects.to_numpy()[:, 1], rtol=1e-9
    )
    # Fitted values are sums in the user's units.
    rounding = 1e-15 * abs(shift)
    np.testing.assert_allclose(fit.fittedvalues, at_zero.fittedvalues, rtol=0, atol=rounding)
    with mpmath.workdps(DIGITS):
        move = mpmath.matrix([[1, -shift], [0, 1]])
        D = move * exact_matrix(at_zero.cov_re) * move.T
        llf, beta = exact_fit(
            y, data.design(x), data.design(x), data.groups, D, at_zero.scale, reml
        )
        assert abs(fit.llf - llf) <= 1e-11 * abs(llf)
        for a, b in zip(fit.params.to_numpy(), beta, strict=True):
            assert abs((a - b) / b) <= 1e-12


@REML
@pytest.mark.parametrize("columns", ["intercept", "dummies"])
def test_response_far_from_zero(data, columns, reml):
    """The working residual sees to a mean of 1e8."""
    y = 1e8 + data.response(data.x)
    first = [data.ones] if columns == "intercept" else [data.half * 1.0, ~data.half * 1.0]
    X, Z = np.column_stack([*first, data.x]), data.design(data.x)
    fit = lmmfast.fit(y, X, data.groups, Z, reml=reml)
    near = lmmfast.fit(y - 1e8, X, data.groups, Z, reml=reml)
    assert fit.llf == pytest.approx(near.llf, rel=1e-11)
    np.testing.assert_allclose(fit.theta, near.theta, rtol=1e-7)
    llf, beta = exact_fit(y, X, Z, data.groups, fit.cov_re.to_numpy(), fit.scale, reml)
    assert abs(fit.llf - llf) <= 1e-11 * abs(llf)
    slope, se = fit.params.to_numpy()[-1], fit.bse.to_numpy()[-1]
    assert abs(slope - beta[-1]) <= 1e-10 * se  # y itself is rounded to 1e-8


@pytest.mark.parametrize(
    "shift",
    [
        0.0,
        1e2,
        1e3,
        1e6,
    ],
)
def test_dummies_in_place_of_an_intercept(data, shift):
    """Columns that add up to the constant: x must be told from them far from the origin too."""
    x = data.x + shift
    y = data.response(x - shift)
    X = np.column_stack([data.half, ~data.half, x]).astype(float)
    fit = lmmfast.fit(y, X, data.groups)
    llf, beta = exact_fit(
        y, X, data.ones[:, None], data.groups, fit.cov_re.to_numpy(), fit.scale, True
    )
    assert abs(fit.llf - llf) <= 1e-8
    for a, b, se in zip(fit.params.to_numpy(), beta, fit.bse.to_numpy(), strict=True):
        assert abs(a - b) <= 1e-8 * se


@pytest.mark.parametrize("structure", ["diag", "identity", "cs", "cs(hom)"])
def test_structures_keep_their_meaning(data, structure):
    """Structures that shifts and scales of Z would leave are fitted in the user's own basis."""
    from problems import STRUCTURES

    x = data.x + 3.0
    y, X = data.response(x), data.design(x)
    fit = lmmfast.fit(y, X, data.groups, X, D=STRUCTURES[structure])
    llf, _ = exact_fit(y, X, X, data.groups, fit.cov_re.to_numpy(), fit.scale, True)
    assert abs(fit.llf - llf) <= 1e-11 * abs(llf)
    reference = lmmfast.fit(y, X, data.groups, X, D=STRUCTURES[structure], engine="reference")
    assert fit.llf == pytest.approx(reference.llf, rel=1e-11)
