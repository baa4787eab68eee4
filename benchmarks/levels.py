"""Models with several grouping factors, nested and crossed: data, sizes, what peers are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from structured import Columns, whole

INSTEVAL = Path(__file__).resolve().parents[1] / "tests" / "oracle" / "data" / "insteval.npz"


@dataclass(frozen=True)
class Levels:
    """One model with several grouping factors, at one or several sizes.

    Attributes
    ----------
    about : str
        What it is, for the heading.
    groups : tuple of str
        Columns of labels.
    covariates : tuple of str
        Columns that the data hold besides y and the labels.
    fixed : str
        The formula without random effects.
    bars : str
        The random effects, as all libraries with formulas read them.
    by : tuple of str
        Grouping factors of the bars, in their order.
    make : callable
        Columns of the data from a generator and a size.
    clusters, quick : tuple of int
        Numbers of levels of the first factor of a full and of a quick run.
    calls : dict
        What other libraries are asked: of R a call on ``data``, of statsmodels its ``vc_formula``.
    factors : tuple of str
        Covariates that are categories.
    pilots, like
        As in `Workload`.
    """

    name: str
    about: str
    groups: tuple[str, ...]
    covariates: tuple[str, ...]
    fixed: str
    bars: str
    by: tuple[str, ...]
    make: Callable[[np.random.Generator, int], Columns]
    clusters: tuple[int, ...]
    quick: tuple[int, ...]
    calls: dict[str, Any] = field(default_factory=dict)
    factors: tuple[str, ...] = ()
    pilots: tuple[int, ...] = ()
    like: str | None = None
    series: ClassVar[None] = None

    @property
    def formula(self) -> str:
        """The model in lme4's notation."""
        return f"{self.fixed} + {self.bars}"

    def options(self, data: Any) -> dict[str, Any]:
        """Arguments of lmmfast besides formula or arrays: none."""
        return {}

    def data_bytes(self, rows: int) -> int:
        """Bytes of the data, at most ten columns."""
        return 80 * rows


# Data


def nested(patients: int) -> Callable[[np.random.Generator, int], Columns]:
    """So many patients in each centre, two to six visits each; rows sorted."""

    def make(rng: np.random.Generator, centers: int) -> Columns:
        units = centers * patients
        unit = np.repeat(np.arange(units), rng.integers(2, 6, units, endpoint=True))
        t = np.arange(len(unit)) - np.searchsorted(unit, unit)
        center = unit // patients
        effects = rng.normal(0.0, 0.7, centers)[center] + rng.normal(0.0, 1.0, units)[unit]
        noise = rng.standard_normal(len(unit))
        return response(rng, t.astype(float), effects + noise) | {
            "center": center,
            "patient": unit % patients,
        }

    return make


def crossed(items: float) -> Callable[[np.random.Generator, int], Columns]:
    """Twenty ratings a user, each by a user and of an item drawn at random; rows in any order."""

    def make(rng: np.random.Generator, users: int) -> Columns:
        n, n_items = 20 * users, round(items * users)
        user, item = rng.integers(users, size=n), rng.integers(n_items, size=n)
        effects = rng.normal(0.0, 0.8, users)[user] + rng.normal(0.0, 0.5, n_items)[item]
        made = response(rng, np.zeros(n), effects + rng.standard_normal(n))
        return {"y": made["y"], "x1": made["x1"], "user": user, "item": item}

    return make


def response(rng: np.random.Generator, t: np.ndarray, noise: np.ndarray) -> Columns:
    """Columns y, x1, t."""
    x1 = whole(rng.standard_normal(len(t)))
    return {"y": 1.0 - 0.3 * x1 + 0.2 * t + noise, "x1": x1, "t": t}


def insteval(rng: np.random.Generator, students: int) -> Columns:
    """lme4's InstEval, ratings of lecturers: those of the first students."""
    with np.load(INSTEVAL) as columns:
        kept = columns["s"] <= students
        return {name: columns[name][kept].astype(np.int64) for name in columns}


VC = {"groups": "center", "vc_formula": {"patient": "0 + C(patient)"}}
PATIENTS = "(1 | center) + (1 | center:patient)"
NLME = "lme(y ~ x1 + t, data, ~ 1 | center/patient)"

LEVELS: dict[str, Levels] = {
    workload.name: workload
    for workload in (
        Levels(
            "nested-small",
            "200 centres of 50 patients with two to six visits",
            ("center", "patient"),
            ("x1", "t"),
            "y ~ x1 + t",
            PATIENTS,
            ("center", "center:patient"),
            nested(50),
            (200,),
            (40,),
            calls={"nlme": NLME, "statsmodels": VC},
            pilots=(10,),
        ),
        Levels(
            "nested-large",
            "2,000 centres of 500 patients with two to six visits",
            ("center", "patient"),
            ("x1", "t"),
            "y ~ x1 + t",
            PATIENTS,
            ("center", "center:patient"),
            nested(500),
            (2_000,),
            (40,),
            calls={"nlme": NLME, "statsmodels": VC},
            pilots=(20, 200),
        ),
        Levels(
            "crossed-small",
            "1,000 users and 300 items, 20,000 ratings",
            ("user", "item"),
            ("x1",),
            "y ~ x1",
            "(1 | user) + (1 | item)",
            ("user", "item"),
            crossed(0.3),
            (1_000,),
            (200,),
            pilots=(200,),
        ),
        Levels(
            "crossed-large",
            "50,000 users and 5,000 items, 1,000,000 ratings",
            ("user", "item"),
            ("x1",),
            "y ~ x1",
            "(1 | user) + (1 | item)",
            ("user", "item"),
            crossed(0.1),
            (50_000,),
            (1_000,),
            pilots=(2_000, 10_000),
        ),
        Levels(
            "insteval-3",
            "73,421 ratings of 1,128 lecturers in 14 departments by 2,972 students",
            ("s", "d", "dept"),
            ("service",),
            "y ~ 1 + service",
            "(1 | s) + (1 | d) + (1 | dept)",
            ("s", "d", "dept"),
            insteval,
            (2_972,),
            (300,),
            pilots=(300,),
        ),
        Levels(
            "insteval-2",
            "the same ratings, departments as fixed effects",
            ("s", "d"),
            ("service", "dept"),
            "y ~ 1 + service * dept",
            "(1 | s) + (1 | d)",
            ("s", "d"),
            insteval,
            (2_972,),
            (300,),
            factors=("dept",),
            pilots=(300,),
        ),
    )
}
