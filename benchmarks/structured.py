"""Models with a residual covariance structure: data, sizes, and how each library writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

SPAN = 64  # days of observation where times are whole days
RANGE = 10.0  # of the Ornstein-Uhlenbeck processes: correlation exp(-lag / range)
DROPOUT = 0.08  # of the subjects left, before each visit
SLACK = "control = list(maxIter = 500, msMaxIter = 500, msMaxEval = 2000)"
Columns = dict[str, np.ndarray]
Structure = Callable[[Any, Callable[[str], Any]], Any]  # of lmmfast and of a column's name


@dataclass(frozen=True)
class Structured:
    """One model with a residual structure, at several sizes.

    Attributes
    ----------
    about : str
        What it is, for the heading.
    covariates : tuple of str
        Columns that the data hold besides y and id.
    fixed : str
        The formula without random effects.
    text, structure : str, callable
        The residual structure as users write it, and what makes it.
    make : callable
        Columns of the data, among them y and id, from a generator, and a size.
    clusters, quick : tuple of int
        Numbers of clusters of a full and of a quick run; with so many ``series``, rows of each.
    intercept : bool
        Whether each cluster has a random intercept.
    calls : dict
        What the other libraries are asked, in R, on ``data``.
    factors : tuple of str
        Columns that are categories.
    engine : str
        Of lmmfast.
    pilots, like
        As in `Workload`.
    """

    name: str
    about: str
    covariates: tuple[str, ...]
    fixed: str
    text: str
    structure: Structure
    make: Callable[[np.random.Generator, int], Columns]
    clusters: tuple[int, ...]
    quick: tuple[int, ...]
    intercept: bool = True
    calls: dict[str, str] = field(default_factory=dict)
    factors: tuple[str, ...] = ()
    engine: str = "auto"
    series: int | None = None
    pilots: tuple[int, ...] = ()
    like: str | None = None
    groups: ClassVar[tuple[str, ...]] = ("id",)

    @property
    def formula(self) -> str:
        """The model as lmmfast reads it."""
        return f"{self.fixed} + (1 | id)" if self.intercept else self.fixed

    @property
    def call(self) -> str:
        """What users of lmmfast write."""
        groups = "" if self.intercept else ', groups="id"'
        engine = "" if self.engine == "auto" else f', engine="{self.engine}"'
        return f'lmmfast.lmm("{self.formula}", data{groups}, residual=lmmfast.{self.text}{engine})'

    def options(self, data: Any) -> dict[str, Any]:
        """Arguments of lmmfast besides formula or arrays."""
        import lmmfast

        columns = getattr(data, "columns", None)
        column = columns.__getitem__ if isinstance(columns, dict) else str
        chosen = {"residual": self.structure(lmmfast, column), "engine": self.engine}
        if not isinstance(columns, dict) and not self.intercept:
            chosen["groups"] = "id"
        return chosen

    def data_bytes(self, rows: int) -> int:
        """Bytes of the data, at most ten columns."""
        return 80 * rows


# Data


def trial(rng: np.random.Generator, clusters: int) -> Columns:
    """Four visits, whose order decides their variances and correlations, with dropout."""
    stay = rng.uniform(size=(clusters, 3)) > DROPOUT
    counts = 1 + np.cumprod(stay, axis=1).sum(axis=1)
    scale = np.sqrt([1.0, 1.4, 1.7, 2.2])
    lags = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    errors = rng.standard_normal((clusters, 4)) @ np.linalg.cholesky(0.3 + 0.7 * 0.6**lags).T
    seen = np.arange(4) < counts[:, None]
    id, visit = np.nonzero(seen)
    arm, x = (rng.uniform(size=clusters) < 0.5)[id], whole(rng.standard_normal(clusters))[id]
    y = 1.0 + (0.5 + 0.2 * arm) * visit + 0.4 * x + (errors * scale)[seen]
    return {"y": y, "arm": arm.astype(float), "visit": visit + 1.0, "x": x, "id": id}


def days(rng: np.random.Generator, clusters: int) -> Columns:
    """Three to ten days out of 64, an Ornstein-Uhlenbeck process and measurement error."""
    counts = rng.integers(3, 10, clusters, endpoint=True)
    order = rng.uniform(size=(clusters, SPAN)).argsort(axis=1).argsort(axis=1)
    id, day = np.nonzero(order < counts[:, None])
    t = day + 1.0
    error = 0.7 * rng.standard_normal(len(id))
    return longitudinal(rng, id, t, process(rng, id, t, RANGE) + error)


def visits(rng: np.random.Generator, clusters: int) -> Columns:
    """Five to eight of eight visits, random intercept and first-order autoregression."""
    counts = rng.integers(5, 8, clusters, endpoint=True)
    order = rng.uniform(size=(clusters, 8)).argsort(axis=1).argsort(axis=1)
    id, visit = np.nonzero(order < counts[:, None])
    noise = process(rng, id, visit, -1.0 / np.log(0.5)) + rng.standard_normal(clusters)[id]
    arm = (rng.uniform(size=clusters) < 0.5)[id]
    columns = longitudinal(rng, id, visit + 1.0, noise + 0.1 * arm * visit)
    return columns | {"visit": columns.pop("t"), "arm": arm.astype(float)}


def fives(rng: np.random.Generator, clusters: int) -> Columns:
    """Five times of a continuum, random intercept and an Ornstein-Uhlenbeck process."""
    id = np.repeat(np.arange(clusters), 5)
    t = np.sort(rng.uniform(0.0, 3 * RANGE, (clusters, 5)), axis=1).ravel()
    noise = process(rng, id, t, RANGE) + rng.standard_normal(clusters)[id]
    return longitudinal(rng, id, t, noise)


SERIES = 50


def series(rng: np.random.Generator, rows: int) -> Columns:
    """Fifty long series with exponential gaps, process, measurement error, random intercept."""
    id = np.repeat(np.arange(SERIES), rows)
    t = rng.exponential(size=(SERIES, rows)).cumsum(axis=1).ravel()
    noise = process(rng, id, t, RANGE) + rng.standard_normal(SERIES)[id]
    return longitudinal(rng, id, t, noise + 0.7 * rng.standard_normal(len(id)))


def longitudinal(rng: np.random.Generator, id: np.ndarray, t: np.ndarray, noise: Any) -> Columns:
    """Columns y, t, x, id with a mean in t / max t and x."""
    x = whole(rng.standard_normal(len(id)))
    return {"y": 1.0 + 0.5 * t / t.max() - 0.3 * x + noise, "t": t, "x": x, "id": id}


def process(rng: np.random.Generator, id: np.ndarray, t: np.ndarray, scale: float) -> np.ndarray:
    """Values (n,) of processes of variance 1 and correlation exp(-lag / scale), one an id."""
    white = rng.standard_normal(len(id))
    starts = np.flatnonzero(np.diff(id, prepend=-1))
    counts = np.diff(np.append(starts, len(id)))
    for k in range(1, int(counts.max())):
        row = starts[counts > k] + k
        rho = np.exp(-(t[row] - t[row - 1]) / scale)
        white[row] = rho * white[row - 1] + np.sqrt(1.0 - rho**2) * white[row]
    return white


def whole(x: np.ndarray) -> np.ndarray:
    """Round to multiples of 1/512."""
    rounded: np.ndarray = np.rint(512.0 * x) / 512.0
    return rounded


STRUCTURED: dict[str, Structured] = {
    workload.name: workload
    for workload in (
        Structured(
            "unstructured",
            "any covariance matrix of four visits, with dropout",
            ("arm", "visit", "x"),
            "y ~ arm * visit + x",
            'Unstructured("visit")',
            lambda lf, column: lf.Unstructured(column("visit")),
            trial,
            (2_000, 20_000),
            (200,),
            intercept=False,
            calls={
                "nlme": "gls(y ~ arm * visit + x, data, "
                "corSymm(form = ~ as.integer(visit) | id), varIdent(form = ~ 1 | visit))",
                "glmmTMB": "glmmTMB(y ~ arm * visit + x + us(visit + 0 | id), data, "
                "dispformula = ~ 0)",
            },
            factors=("visit",),
            pilots=(200,),
        ),
        Structured(
            "ou-nugget",
            "Ornstein-Uhlenbeck process and measurement error, 3 to 10 days out of 64",
            ("t", "x"),
            "y ~ t + x",
            'OU("t", nugget=True)',
            lambda lf, column: lf.OU(column("t"), nugget=True),
            days,
            (1_000, 10_000),
            (100,),
            intercept=False,
            calls={
                "nlme": "gls(y ~ t + x, data, corExp(form = ~ t | id, nugget = TRUE))",
                "glmmTMB": "glmmTMB(y ~ t + x + ou(numFactor(t) + 0 | id), data)",
            },
            pilots=(50, 200),
        ),
        Structured(
            "intercept-ar1",
            "random intercept and AR(1), five to eight of eight visits",
            ("arm", "visit", "x"),
            "y ~ arm * visit + x",
            'AR1("visit")',
            lambda lf, column: lf.AR1(column("visit")),
            visits,
            (1_000, 10_000),
            (100,),
            calls={
                "nlme": "lme(y ~ arm * visit + x, data, ~ 1 | id, corAR1(form = ~ visit | id))",
                "glmmTMB": "glmmTMB(y ~ arm * visit + x + (1 | id) + ar1(factor(visit) + 0 | id), "
                "data, dispformula = ~ 0)",
            },
            pilots=(100,),
        ),
        Structured(
            "ou-million",
            "Ornstein-Uhlenbeck process and random intercept, five irregular times",
            ("t", "x"),
            "y ~ t + x",
            'OU("t")',
            lambda lf, column: lf.OU(column("t")),
            fives,
            (100_000, 1_000_000),
            (1_000,),
        ),
        Structured(
            "long-series",
            f"{SERIES} series of irregular times, process, measurement error, random intercept",
            ("t", "x"),
            "y ~ t + x",
            'OU("t", nugget=True)',
            lambda lf, column: lf.OU(column("t"), nugget=True),
            series,
            (1_000, 5_000, 20_000, 100_000),
            (200, 1_000),
            engine="markov",
            series=SERIES,
        ),
    )
}
