"""Small data sets: one call of the core gives what the stages in Python give one by one."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import lmmfast as lf
from lmmfast.fitting import pipeline as fitting


def random_data(seed: int, m: int = 25, n_i: int = 6, p: int = 3) -> dict[str, Any]:
    """Rows in the order of their groups: X = 1, normal columns; Z = 1, t."""
    rng = np.random.default_rng(seed)
    n = m * n_i
    groups = np.repeat(np.arange(m), n_i)
    t = rng.normal(size=n)
    X = np.column_stack([np.ones(n), t, rng.normal(size=(n, p - 2))])
    Z = np.column_stack([np.ones(n), t])
    b = rng.normal(size=(m, 2)) @ np.array([[1.0, 0.3], [0.0, 0.7]])
    y = X @ np.arange(1, p + 1) + np.sum(Z * b[groups], axis=1) + rng.normal(size=n)
    return {"y": y, "X": X, "groups": groups, "Z": Z}


def plain() -> dict[str, Any]:
    return random_data(1)


def shuffled() -> dict[str, Any]:
    data = random_data(2)
    rows = np.random.default_rng(3).permutation(len(data["y"]))
    return {name: values[rows] for name, values in data.items()}


def constant_is_seven() -> dict[str, Any]:
    data = random_data(4)
    data["X"][:, 0], data["Z"][:, 0] = 7.0, -2.5
    return data


def no_constant() -> dict[str, Any]:
    data = random_data(5)
    return data | {"X": data["X"][:, 1:], "Z": data["Z"][:, 1:]}


def indicators() -> dict[str, Any]:
    data = random_data(6)
    level = np.arange(len(data["y"])) % 3
    data["X"] = np.column_stack([level == k for k in range(3)] + [data["X"][:, 1] + 40]).astype(
        float
    )
    return data


def years() -> dict[str, Any]:
    data = random_data(7)
    year = 2000.0 + np.arange(len(data["y"])) % 17
    data["X"] = np.column_stack([np.ones(len(year)), year, year**2, year**3])
    data["Z"] = np.column_stack([np.ones(len(year)), year])
    return data


def large_and_small() -> dict[str, Any]:
    data = random_data(8)
    scale = np.array([1.0, 1e6, 1e-6])
    return data | {"X": data["X"] * scale + [0.0, 2e7, 0.0], "Z": data["Z"] * [1.0, 1e5]}


def shifted_response() -> dict[str, Any]:
    data = random_data(9)
    return data | {"y": 1e-3 * data["y"] + 1e5}


def weights_and_offset() -> dict[str, Any]:
    rng = np.random.default_rng(10)
    data = shuffled()
    n = len(data["y"])
    return data | {"weights": np.exp(3 * rng.normal(size=n)), "offset": 100 * rng.normal(size=n)}


def heavy_row() -> dict[str, Any]:
    data = random_data(11)
    weights = np.ones(len(data["y"]))
    weights[:3] = 1e8
    return data | {"weights": weights}


def strided() -> dict[str, Any]:
    data = random_data(12)
    return data | {"y": np.repeat(data["y"], 3)[::3], "X": np.asfortranarray(data["X"])[:, ::-1]}


def diagonal() -> dict[str, Any]:
    return random_data(13) | {"D": lf.D.diag()}


def identity() -> dict[str, Any]:
    return random_data(14) | {"D": lf.D.identity()}


def compound_symmetry() -> dict[str, Any]:
    return random_data(15) | {"D": lf.D.cs(hom=True)}


def no_variance() -> dict[str, Any]:
    data = random_data(16)
    return data | {"y": np.random.default_rng(17).normal(size=len(data["y"]))}


def random_intercept() -> dict[str, Any]:
    return random_data(18) | {"Z": None}


def uneven() -> dict[str, Any]:
    data = random_data(19, m=40, n_i=8)
    rows = np.flatnonzero(np.random.default_rng(20).random(len(data["y"])) < 0.6)
    return {name: values[rows] for name, values in data.items()}


def many_rows() -> dict[str, Any]:
    return random_data(21, m=500, n_i=8)


MODELS = [
    plain,
    shuffled,
    constant_is_seven,
    no_constant,
    indicators,
    years,
    large_and_small,
    shifted_response,
    weights_and_offset,
    heavy_row,
    strided,
    diagonal,
    identity,
    compound_symmetry,
    no_variance,
    random_intercept,
    uneven,
    many_rows,
]


@pytest.fixture
def general(monkeypatch):
    """Fits that go through the stages in Python."""

    def fit(call):
        with monkeypatch.context() as m:
            m.setattr(fitting, "fit_small", lambda *_: None)
            return call()

    return fit


@pytest.fixture
def small(monkeypatch):
    """Fits of which only the core knows."""

    def fail(*_: Any) -> None:
        raise AssertionError("the general way was gone")

    def fit(call):
        with monkeypatch.context() as m:
            m.setattr(fitting, "prepare", fail)
            return call()

    return fit


def same(a: Any, b: Any, rtol: float) -> None:
    assert (a is None) == (b is None)
    if a is not None:
        size = np.max(np.abs(b), initial=0.0)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * size)


def check_agreement(one: lf.LMMResult, other: lf.LMMResult) -> None:
    for name in (
        "x_scale",
        "z_scale",
        "y_scale",
        "z_units",
        "weighted",
        "weight_scale",
        "excluded",
    ):
        np.testing.assert_array_equal(getattr(one._basis, name), getattr(other._basis, name))
    for name in ("x_shift", "z_shift", "z_unit_values", "y_shift", "y_size", "unit"):
        same(getattr(one._basis, name), getattr(other._basis, name), 1e-12)
    # Coefficients of nearly dependent columns hold fewer digits, and need not hold more.
    mixed = one._basis.x_mix is not None
    for name in ("x_mix", "z_mix"):
        same(getattr(one._basis, name), getattr(other._basis, name), 1e-5)
    rounding = 1e-15 * other._basis.y_size
    same(one._basis.beta, other._basis.beta, 1e-5 if mixed else 1e-10 + rounding)
    assert abs(one.llf - other.llf) < 1e-10 * (abs(other.llf) + one.nobs)
    se = np.sqrt(np.diag(other.cov_params()))
    assert np.max(np.abs(one.params - other.params) / se) < 1e-8
    cov = one.cov_params() - other.cov_params()
    assert np.max(np.abs(cov.to_numpy()) / np.outer(se, se)) < 1e-7
    sd = np.sqrt(np.diag(other.cov_re))
    sd += 1e-6 * sd.max() + 1e-8 * one.sigma  # zero on the boundary, but for rounding
    assert np.max(np.abs((one.cov_re - other.cov_re).to_numpy()) / np.outer(sd, sd)) < 1e-6
    np.testing.assert_allclose(one.scale, other.scale, rtol=1e-8)
    b, b_other = one.random_effects.to_numpy(), other.random_effects.to_numpy()
    assert np.max(np.abs(b - b_other), axis=0).max() < 1e-6 * (np.abs(b_other).max() + one.sigma)
    np.testing.assert_allclose(one.theta_cov, other.theta_cov, rtol=1e-4, atol=0)
    assert one.certificate.status == other.certificate.status
    assert one.certificate.rank == other.certificate.rank
    assert [entry["step"] for entry in one.trace][:3] == [e["step"] for e in other.trace][:3]
    np.testing.assert_array_equal(one.group_sizes, other.group_sizes)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_one_call_agrees_with_the_stages(model, reml, small, general):
    data = model()
    one = small(lambda: lf.fit(**data, reml=reml))
    check_agreement(one, general(lambda: lf.fit(**data, reml=reml)))


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ Days + (Days | Subject)",
        "Reaction ~ Days + (Days || Subject)",
        "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
        "Reaction ~ 0 + Days + (Days | Subject)",
    ],
)
def test_formulas_agree(formula, general):
    data = lf.datasets.sleepstudy()
    check_agreement(lf.lmm(formula, data), general(lambda: lf.lmm(formula, data)))


def test_sleepstudy(small):
    d = lf.datasets.sleepstudy()
    X = np.column_stack([np.ones(len(d)), d["Days"].to_numpy(float)])
    fit = small(lambda: lf.fit(d["Reaction"].to_numpy(), X, d["Subject"], Z=X))
    assert abs(fit.llf - -871.8141359790) < 1e-9


def test_any_max_iter_will_do(small):
    assert small(lambda: lf.fit(**plain(), max_iter=10**12)).certificate.converged


def outcome(call) -> tuple[Any, ...]:
    """What a call raises, or its log-likelihood, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result: Any = round(call().llf, 6)
        except Exception as error:
            result = type(error), str(error)
    return result, [(w.category, str(w.message), w.filename) for w in caught]


def irregular() -> dict[str, dict[str, Any]]:
    base = random_data(30)
    y, X, Z, groups = base["y"], base["X"], base["Z"], base["groups"]
    n = len(y)

    def with_entry(values, place, entry):
        changed = values.copy()
        changed[place] = entry
        return changed

    return {
        "dependent column": base | {"X": np.column_stack([X, X[:, 1] + X[:, 2]])},
        "zero column": base | {"X": np.column_stack([X, np.zeros(n)])},
        "two constants": base | {"X": np.column_stack([X, np.ones(n)])},
        "NaN": base | {"y": with_entry(y, 3, np.nan)},
        "infinity": base | {"Z": with_entry(Z, (5, 1), np.inf)},
        "overflow": base | {"y": 1e200 * y, "X": X},
        "huge": base | {"y": 1e160 * y},
        "tiny": base | {"y": 1e-170 * y},
        "single group": base | {"groups": np.zeros(n, dtype=int)},
        "a group per row": base | {"groups": np.arange(n), "Z": None},
        "fitted exactly": base | {"y": X @ np.ones(X.shape[1])},
        "constant response": base | {"y": np.full(n, 3.0)},
        "fitted exactly within": base | {"y": 1.0 * (groups % 5) + Z[:, 1] * (groups % 3)},
        "empty random effect": base | {"Z": with_entry(Z, (slice(None), 1), 0.0)},
        "twice the same random effect": base | {"Z": Z[:, [0, 1, 1]]},
        "too many fixed effects": base | {"X": np.vander(np.linspace(-1, 1, n), n - 1)},
        "few evaluations": base | {"max_iter": 2},
        "n_jobs": base | {"n_jobs": 0},
    }


@pytest.mark.parametrize("name", irregular())
def test_irregular_data_are_explained_as_before(name, general):
    data = irregular()[name]
    assert outcome(lambda: lf.fit(**data)) == outcome(lambda: general(lambda: lf.fit(**data)))


def test_warnings_point_at_the_caller():
    with pytest.warns(lf.RankWarning) as caught:
        lf.fit(**irregular()["dependent column"])
    assert caught[0].filename == __file__
    with pytest.warns(lf.ConvergenceWarning) as caught:
        lf.fit(**irregular()["few evaluations"])
    assert caught[0].filename == __file__
