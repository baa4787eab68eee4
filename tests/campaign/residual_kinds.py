"""Residual structures by their definitions in docs/structures.md, from the parameters as reported.

Each has a way to ask lmmfast for it, and R of some rows of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import lmmfast as lf

Get = Callable[
    [str], float
]  # a parameter by name: {} stands for |arm, <> for arm:, where there is by=


@dataclass(frozen=True)
class Residual:
    """A kind of residual structure.

    Attributes
    ----------
    make : callable
        ``make(by)`` gives lmmfast's structure.
    covariance : callable
        ``covariance(get, rows)`` gives R (k, k) of rows, weights aside.
    by : bool
        Whether it may differ by arm.
    alone : bool
        Whether random effects beside it could not be told apart from it.
    """

    make: Callable[[str | None], Any]
    covariance: Callable[[Get, pd.DataFrame], np.ndarray]
    by: bool = True
    alone: bool = False


def gaps(rows: pd.DataFrame, column: str) -> np.ndarray:
    x = rows[column].to_numpy(float)
    return np.abs(x[:, None] - x)


def scaled(C: np.ndarray, sds: np.ndarray) -> np.ndarray:
    return C * np.outer(sds, sds)


def by_visit(get: Get, rows: pd.DataFrame) -> np.ndarray:
    return np.sqrt([get(f"var(Residual|<>{v})") for v in rows["v"]])


def equal(get: Get, rows: pd.DataFrame) -> np.ndarray:
    return np.full(len(rows), np.sqrt(get("var(Residual{})")))


def equicorrelated(get: Get, rows: pd.DataFrame) -> np.ndarray:
    rho = get("cor(Residual{})")
    return rho + (1 - rho) * np.eye(len(rows))


def autoregressive(get: Get, rows: pd.DataFrame) -> np.ndarray:
    return float(get("rho(v{})")) ** gaps(rows, "v")


def toeplitz(bands: int | None) -> Callable[[Get, pd.DataFrame], np.ndarray]:
    def correlation(get: Get, rows: pd.DataFrame) -> np.ndarray:
        lags = gaps(rows, "v").astype(int)
        longest = lags.max() if bands is None else bands
        rho = [1.0, *(get(f"rho{k}(v{{}})") for k in range(1, longest + 1))]
        return np.where(lags <= longest, np.array(rho)[np.minimum(lags, longest)], 0.0)

    return correlation


def antedependent(get: Get, rows: pd.DataFrame) -> np.ndarray:
    v = rows["v"].tolist()
    C = np.eye(len(v))
    for i, a in enumerate(v):
        for j, b in enumerate(v):
            if a < b:
                C[i, j] = C[j, i] = np.prod([get(f"rho({k},{k + 1}{{}})") for k in range(a, b)])
    return C


def unstructured(get: Get, rows: pd.DataFrame) -> np.ndarray:
    v = rows["v"].tolist()
    return np.array(
        [
            [
                get(f"var(Residual|<>{a})") if a == b else get(f"cov({min(a, b)},{max(a, b)}{{}})")
                for b in v
            ]
            for a in v
        ]
    )


DECAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of distances over the range
    "exponential": lambda x: np.exp(-x),
    "gaussian": lambda x: np.exp(-(x**2)),
    "matern": lambda x: (1 + np.sqrt(3) * x) * np.exp(-np.sqrt(3) * x),
    "spherical": lambda x: np.where(x < 1, 1 - 1.5 * x + 0.5 * x**3, 0.0),
}


def spatial(decay: str, nugget: bool) -> Residual:
    make = {
        "exponential": lf.SpatialExponential,
        "gaussian": lf.SpatialGaussian,
        "matern": lambda *a, **k: lf.SpatialMatern(*a, nu=1.5, **k),
        "spherical": lf.SpatialSpherical,
    }[decay]
    process = "var(Spatial|t{})" if nugget else "var(Residual{})"

    def covariance(get: Get, rows: pd.DataFrame) -> np.ndarray:
        C = DECAYS[decay](gaps(rows, "t") / get("range(t{})"))
        return get(process) * C + (get("var(Residual{})") * np.eye(len(rows)) if nugget else 0)

    return Residual(lambda by: make("t", nugget=nugget, by=by), covariance)


def with_sds(
    correlation: Callable[[Get, pd.DataFrame], np.ndarray],
    sds: Callable[[Get, pd.DataFrame], np.ndarray],
) -> Callable[[Get, pd.DataFrame], np.ndarray]:
    return lambda get, rows: scaled(correlation(get, rows), sds(get, rows))


def ou(get: Get, rows: pd.DataFrame) -> np.ndarray:
    return float(get("rho(t{})")) ** gaps(rows, "t")


def identity(get: Get, rows: pd.DataFrame) -> np.ndarray:
    return np.eye(len(rows))


def by_arm(get: Get, rows: pd.DataFrame) -> np.ndarray:
    return np.sqrt([get(f"var(Residual|{arm})") for arm in rows["arm"]])


def power(get: Get, rows: pd.DataFrame) -> np.ndarray:
    return np.sqrt(get("var(Residual)")) * rows["z"].to_numpy() ** get("power(z)")


def exponent(get: Get, rows: pd.DataFrame) -> np.ndarray:
    return np.sqrt(get("var(Residual)")) * np.exp(get("expon(z)") * rows["z"].to_numpy())


def nugget_by_arm(get: Get, rows: pd.DataFrame) -> np.ndarray:
    nu = get("nugget(t)")
    C = (1 - nu) * ou(get, rows) + nu * np.eye(len(rows))
    return scaled(C, np.sqrt([get(f"var(Total|{arm})") for arm in rows["arm"]]))


RESIDUALS: dict[str, Residual] = {
    "independent": Residual(lambda by: None, with_sds(identity, equal), by=False),
    "compound symmetry": Residual(
        lambda by: lf.CompoundSymmetry(by=by),
        with_sds(equicorrelated, equal),
        alone=True,
    ),
    "heterogeneous CS": Residual(
        lambda by: lf.HeterogeneousCS("v", by=by),
        with_sds(equicorrelated, by_visit),
        alone=True,
    ),
    "AR(1)": Residual(
        lambda by: lf.AR1("v", by=by),
        with_sds(autoregressive, equal),
    ),
    "heterogeneous AR(1)": Residual(
        lambda by: lf.HeterogeneousAR1("v", by=by),
        with_sds(autoregressive, by_visit),
    ),
    "Toeplitz": Residual(
        lambda by: lf.Toeplitz("v", by=by),
        with_sds(toeplitz(None), equal),
        alone=True,
    ),
    "banded Toeplitz": Residual(
        lambda by: lf.Toeplitz("v", bands=1, by=by),
        with_sds(toeplitz(1), equal),
    ),
    "heterogeneous Toeplitz": Residual(
        lambda by: lf.HeterogeneousToeplitz("v", by=by),
        with_sds(toeplitz(None), by_visit),
        alone=True,
    ),
    "ante-dependence": Residual(
        lambda by: lf.Antedependence("v", by=by),
        with_sds(antedependent, equal),
        alone=True,
    ),
    "heterogeneous ante-dependence": Residual(
        lambda by: lf.HeterogeneousAntedependence("v", by=by),
        with_sds(antedependent, by_visit),
        alone=True,
    ),
    "unstructured": Residual(
        lambda by: lf.Unstructured("v", by=by),
        unstructured,
        alone=True,
    ),
    "OU": Residual(lambda by: lf.OU("t", by=by), with_sds(ou, equal)),
    "OU with nugget": Residual(
        lambda by: lf.OU("t", nugget=True, by=by),
        lambda get, rows: (
            get("var(OU|t{})") * ou(get, rows) + get("var(Residual{})") * np.eye(len(rows))
        ),
    ),
    **{
        f"spatial {decay}{' with nugget' if nugget else ''}": spatial(decay, nugget)
        for decay in DECAYS
        for nugget in (False, True)
    },
    "by group": Residual(lambda by: lf.ByGroup("arm"), with_sds(identity, by_arm), by=False),
    "power": Residual(
        lambda by: lf.VarPower("z"),
        with_sds(identity, power),
        by=False,
    ),
    "exponent": Residual(
        lambda by: lf.VarExp("z"),
        with_sds(identity, exponent),
        by=False,
    ),
    "AR(1) times groups": Residual(
        lambda by: lf.AR1("v") * lf.ByGroup("arm"),
        with_sds(autoregressive, by_arm),
        by=False,
    ),
    "compound symmetry times power": Residual(
        lambda by: lf.CompoundSymmetry() * lf.VarPower("z"),
        with_sds(equicorrelated, power),
        by=False,
        alone=True,
    ),
    "nugget times groups": Residual(
        lambda by: lf.OU("t", nugget=True) * lf.ByGroup("arm"),
        nugget_by_arm,
        by=False,
    ),
}
