"""The models and data that are timed: one named list, sizes included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from levels import LEVELS, Levels
from structured import STRUCTURED, Structured


@dataclass(frozen=True)
class Workload:
    """One model on data of one kind, at several numbers of clusters.

    The columns of X are 1, t, x1, t x1, x2, x3, …; those of Z are 1, t, x1, x2, ….

    Attributes
    ----------
    about : str
        What sets it apart, for the heading.
    clusters, quick : tuple of int
        Numbers of clusters of a full and of a quick run.
    p, q : int
        Columns of X (at least 4) and of Z.
    sizes : (int, int)
        Rows of the smallest and of the largest cluster.
    pilots : tuple of int
        Smaller untabulated runs, which tell how slow a peer will be.
    like : str or None
        Workload that takes no more time a row: a peer too slow for it is not tried here.
    shuffled : bool
        Rows in random order rather than sorted by cluster.
    repeated : bool
        All clusters observed at the same times, 0, 1, …, with an x1 that is constant within each.
    dtype : str
        Of y and the columns of X.
    """

    name: str
    about: str
    clusters: tuple[int, ...]
    quick: tuple[int, ...]
    p: int = 4
    q: int = 2
    sizes: tuple[int, int] = (2, 8)
    pilots: tuple[int, ...] = (10**4, 10**5)
    like: str | None = "slope"
    shuffled: bool = False
    repeated: bool = False
    dtype: str = "float64"
    factors: ClassVar[tuple[str, ...]] = ()  # columns that are categories: none
    series: ClassVar[None] = None
    groups: ClassVar[tuple[str, ...]] = ("id",)  # columns of labels

    @property
    def covariates(self) -> list[str]:
        """Columns that the data hold besides y and id: t, x1, x2, …."""
        return ["t", *(f"x{k}" for k in range(1, max(self.p - 2, self.q - 1)))]

    @property
    def x_names(self) -> list[str]:
        """Columns of X after the intercept, as terms of a formula."""
        return ["t", "x1", "t:x1", *self.covariates[2 : self.p - 2]]

    @property
    def z_names(self) -> list[str]:
        """Columns of Z after the intercept."""
        return self.covariates[: self.q - 1]

    @property
    def fixed(self) -> str:
        """The formula without its bars."""
        return f"y ~ {' + '.join(self.x_names)}"

    @property
    def random(self) -> str:
        """What stands before the bar."""
        return " + ".join(self.z_names) or "1"

    @property
    def formula(self) -> str:
        """The model in lme4's notation."""
        return f"{self.fixed} + ({self.random} | id)"

    @property
    def short_formula(self) -> str:
        """The model with a long sum of columns abbreviated."""
        names = self.x_names
        if len(names) > 8:
            names = [*names[:4], "…", names[-1]]
        return f"y ~ {' + '.join(names)} + ({self.random} | id)"

    def options(self, data: Any) -> dict[str, Any]:
        """Arguments of lmmfast besides formula or arrays: none."""
        return {}

    def data_bytes(self, rows: int) -> int:
        """Bytes of y, X, Z and groups as arrays."""
        item = 4 if self.dtype == "float32" else 8
        return rows * (item * (1 + self.p + (self.q if self.q > 1 else 0)) + 8)


AnyWorkload = Workload | Structured | Levels

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            "intercept",
            "random intercept",
            (10**4, 10**5, 10**6, 10**7),
            (10**4, 10**5),
            q=1,
            pilots=(10**3,),
            like=None,
        ),
        Workload(
            "slope",
            "random intercept and slope",
            (10**4, 10**5, 10**6, 10**7),
            (10**4, 10**5),
            pilots=(10**3,),
            like=None,
        ),
        Workload("q3", "three random effects", (10**5, 10**6), (10**4,), q=3),
        Workload("q6", "six random effects", (10**4, 10**5), (10**4,), p=7, q=6),
        Workload("p20", "twenty columns of X", (10**5, 10**6), (10**4,), p=20),
        Workload("p100", "a hundred columns of X", (10**4, 10**5), (10**4,), p=100),
        Workload(
            "long",
            "100 clusters of 10,000 rows",
            (100,),
            (100,),
            sizes=(10**4, 10**4),
            pilots=(10,),
            like=None,
        ),
        Workload("shuffled", "rows in random order", (10**6,), (10**5,), shuffled=True),
        Workload(
            "float32",
            "columns in single precision",
            (10**6,),
            (10**5,),
            dtype="float32",
        ),
        Workload(
            "balanced",
            "all clusters observed at the same five times",
            (10**6,),
            (10**5,),
            sizes=(5, 5),
            repeated=True,
        ),
    )
}

# Every workload that is fitted once, by one library after the other.
ALL: dict[str, AnyWorkload] = WORKLOADS | STRUCTURED | LEVELS
