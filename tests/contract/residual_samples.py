"""Small data sets and one of every residual structure, for the tests of engines and fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import lmmfast as lf
from lmmfast.residual.structure import ResidualStructure


def cauchy(psi: Any, values: Any) -> tuple[Any, Any]:
    """A correlation that lmmfast does not have: 1 / (1 + (d / l)^2), l = exp(psi)."""
    d = np.sqrt(((values[:, None] - values[None, :]) ** 2).sum(axis=2))
    a = (d / np.exp(psi[0])) ** 2
    return 1 / (1 + a), (2 * a / (1 + a) ** 2)[None]


#: Every public structure, and products; each on the columns of `longitudinal`.
STRUCTURES: dict[str, Callable[[], ResidualStructure]] = {
    "Independent": lambda: lf.Independent(),
    "ByGroup": lambda: lf.ByGroup("sex"),
    "VarPower": lambda: lf.VarPower("v"),
    "VarPower by": lambda: lf.VarPower("v", by="sex"),
    "VarExp": lambda: lf.VarExp("v"),
    "CompoundSymmetry": lambda: lf.CompoundSymmetry(),
    "HeterogeneousCS": lambda: lf.HeterogeneousCS("visit"),
    "AR1": lambda: lf.AR1("visit"),
    "AR1 by": lambda: lf.AR1("visit", by="arm"),
    "ARMA11": lambda: lf.ARMA11("visit"),
    "ARMA11 by": lambda: lf.ARMA11("visit", by="arm"),
    "ARMA11 * ByGroup": lambda: lf.ARMA11("visit") * lf.ByGroup("visit"),
    "HeterogeneousAR1": lambda: lf.HeterogeneousAR1("visit"),
    "OU": lambda: lf.OU("t"),
    "OU nugget": lambda: lf.OU("t", nugget=True),
    "OU nugget by": lambda: lf.OU("t", nugget=True, by="arm"),
    "Toeplitz": lambda: lf.Toeplitz("visit"),
    "Toeplitz bands": lambda: lf.Toeplitz("visit", bands=1),
    "HeterogeneousToeplitz": lambda: lf.HeterogeneousToeplitz("visit"),
    "Antedependence": lambda: lf.Antedependence("visit"),
    "HeterogeneousAntedependence": lambda: lf.HeterogeneousAntedependence("visit"),
    "Unstructured": lambda: lf.Unstructured("visit"),
    "Unstructured by": lambda: lf.Unstructured("visit", by="arm"),
    "SpatialExponential": lambda: lf.SpatialExponential("x1", "x2", nugget=True),
    "SpatialGaussian": lambda: lf.SpatialGaussian("x1", "x2", nugget=True),
    "SpatialMatern 1/2": lambda: lf.SpatialMatern("x1", nu=0.5, nugget=True),
    "SpatialMatern 3/2": lambda: lf.SpatialMatern("x1", "x2", nu=1.5),
    "SpatialMatern 5/2": lambda: lf.SpatialMatern("x1", "x2", "t", nu=2.5),
    "SpatialLinear": lambda: lf.SpatialLinear("t"),
    "SpatialLinear nugget by": lambda: lf.SpatialLinear("t", nugget=True, by="arm"),
    "SpatialRationalQuadratic": lambda: lf.SpatialRationalQuadratic("x1", "x2", nugget=True),
    "SpatialSpherical": lambda: lf.SpatialSpherical("x1", "x2"),
    "SpatialPower": lambda: lf.SpatialPower("t"),
    "CustomCorrelation": lambda: lf.CustomCorrelation("t", function=cauchy, start=[0.3]),
    "AR1 * ByGroup * VarPower": lambda: lf.AR1("visit") * lf.ByGroup("sex") * lf.VarPower("v"),
    "OU nugget * VarExp": lambda: lf.OU("t", nugget=True) * lf.VarExp("v"),
    "ByGroup * Unstructured": lambda: lf.ByGroup("sex") * lf.Unstructured("visit"),
}

#: Those that the Markov engine knows.
MARKOV = [
    "AR1",
    "AR1 by",
    "HeterogeneousAR1",
    "OU",
    "OU nugget",
    "OU nugget by",
    "SpatialMatern 1/2",
    "SpatialPower",
    "AR1 * ByGroup * VarPower",
    "OU nugget * VarExp",
]


def longitudinal(seed: int = 0, m: int = 40, regular: bool = False) -> pd.DataFrame:
    """Up to four visits of m subjects, some missing, rows in no order, one subject with one row.

    Parameters
    ----------
    regular : bool
        The same times, covariates and weights for all subjects: few patterns.
    """
    rng = np.random.default_rng(seed)
    fixed = rng.uniform(0.5, 2.5, (4, 4))
    rows = []
    for i in range(m):
        b, e = rng.normal(0, 0.8, 2), 0.0
        visits = np.flatnonzero(rng.random(4) < 0.8) if i else np.array([2])
        for k in visits if len(visits) else [1]:
            x = fixed[k] if regular else rng.uniform(0.5, 2.5, 4)
            t = 1.5 * k + (0.0 if regular else 0.5 * rng.random())
            e = 0.6 * e + rng.normal()
            y = 1 + 0.5 * t + b[0] + 0.3 * b[1] * t + e * (1 + 0.2 * k)
            rows.append((f"s{i:03d}", "AB"[i % 2], "FM"[i // 2 % 2], f"V{k}", t, *x, y))
    names = ["id", "arm", "sex", "visit", "t", "x1", "x2", "v", "w", "y"]
    return pd.DataFrame(rows, columns=names).sample(frac=1, random_state=seed, ignore_index=True)
