"""A model for each engine: what the tests of faults fit, in processes of their own."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

import lmmfast as lf

warnings.simplefilter("ignore", lf.LmmWarning)


def data(m: int, seed: int = 0) -> dict[str, np.ndarray]:
    """m groups of 5 rows at 5 visits, in sites, with items that cross them."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(m), 5)
    n = g.size
    x = rng.standard_normal(n)
    return {
        "g": g,
        "site": g // 10,
        "item": rng.integers(0, max(m // 8, 3), n),
        "visit": np.tile(np.arange(5), m),
        "t": np.tile(np.arange(5.0), m) + 0.01 * g,
        "x": x,
        "y": x + rng.standard_normal(m)[g] + rng.standard_normal(n),
    }


def _with_X(d: dict[str, np.ndarray]) -> np.ndarray:
    return np.column_stack([np.ones(len(d["y"])), d["x"]])


def _plain(d: dict[str, np.ndarray], **options: object) -> np.ndarray:
    X = _with_X(d)
    fit = lf.fit(d["y"], X, d["g"], X, **options)
    return np.concatenate([[fit.llf], fit.params, fit.theta, fit.theta_cov.to_numpy().ravel()])


def _residual(structure: Callable[[dict[str, np.ndarray]], object]) -> Callable[..., np.ndarray]:
    def run(d: dict[str, np.ndarray], **options: object) -> np.ndarray:
        fit = lf.fit(d["y"], _with_X(d), d["g"], residual=structure(d), **options)
        return np.concatenate([[fit.llf], fit.params, fit.theta])

    return run


def _levels(outer: str) -> Callable[..., np.ndarray]:
    def run(d: dict[str, np.ndarray], **options: object) -> np.ndarray:
        fit = lf.fit(d["y"], _with_X(d), [d[outer], d["g"]], **options)
        return np.concatenate([[fit.llf], fit.params, fit.theta])

    return run


def _many(d: dict[str, np.ndarray], **options: object) -> np.ndarray:
    Y = d["y"][:, None] + np.sin(np.arange(8.0) * d["t"][:, None])
    return np.asarray(lf.fit_many(Y, _with_X(d), d["g"], **options).llf)


def _segments(d: dict[str, np.ndarray], **options: object) -> np.ndarray:
    fits = lf.lmm_by("y ~ x + (1 | g)", d, by="site", **options)
    return np.asarray([fits[label].llf for label in list(fits)[:6]])


#: What each engine fits: a function of the data, and options of the fit, that gives numbers.
ENGINES: dict[str, Callable[..., np.ndarray]] = {
    "moments": _plain,
    "reference": lambda d, **options: _plain(d, engine="reference", **options),
    "dense": _residual(lambda d: lf.Unstructured(d["visit"])),
    "distances": _residual(lambda d: lf.SpatialGaussian(d["t"], nugget=True)),
    "markov": lambda d, **options: _residual(lambda d: lf.OU(d["t"], nugget=True))(
        d, engine="markov", **options
    ),
    "nested": _levels("site"),
    "crossed": _levels("item"),
    "fit_many": _many,
    "lmm_by": _segments,
}

#: Groups of a fit that takes some tenths of a second.
LARGE = {
    "moments": 100_000,
    "reference": 1_000,
    "dense": 20_000,
    "distances": 4_000,
    "markov": 10_000,
    "nested": 30_000,
    "crossed": 10_000,
    "fit_many": 20_000,
    "lmm_by": 30_000,
}


def small(kind: str, **options: object) -> bytes:
    """All bits of a small fit."""
    return ENGINES[kind](data(60), **options).tobytes()
