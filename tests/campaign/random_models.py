"""Random small problems of all kinds of models, each from its seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from residual_kinds import RESIDUALS, Residual

STRUCTURES = ("us", "diag", "cs", "identity")


@dataclass(frozen=True)
class Term:
    """Random effects: ``structure(1 + x | group)``."""

    structure: str
    columns: tuple[str, ...]  # "1" is the intercept
    group: tuple[str, ...]  # columns of which combinations are the levels

    def __str__(self) -> str:
        inner = " + ".join(self.columns)
        text = f"({inner} | {':'.join(self.group)})"
        return text if self.structure == "us" else self.structure + text


@dataclass(frozen=True)
class Problem:
    """A model and its data."""

    seed: int
    data: pd.DataFrame
    fixed: tuple[str, ...]  # columns of X beside the intercept
    terms: tuple[Term, ...]
    residual: str  # a key of RESIDUALS
    by: str | None
    weights: str | None
    offset: str | None
    reml: bool

    @property
    def formula(self) -> str:
        return " + ".join([" y ~ 1".strip(), *self.fixed, *map(str, self.terms)])

    @property
    def structure(self) -> Residual:
        return RESIDUALS[self.residual]

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `lmmfast.lmm` beside formula and data."""
        residual = self.structure.make(self.by)
        groups = "id" if not self.terms and residual is not None else None
        return {
            "groups": groups,
            "residual": residual,
            "weights": self.weights,
            "offset": self.offset,
            "reml": self.reml,
        }

    def __str__(self) -> str:
        structure = self.residual + (f" by {self.by}" if self.by else "")
        extra = ", ".join(filter(None, [self.weights and "weights", self.offset and "offset"]))
        method = "REML" if self.reml else "ML"
        return f"{self.seed}: {self.formula}; {structure}; {len(self.data)} rows; {method} {extra}"


def problem(seed: int) -> Problem:
    """Problem number ``seed``: 12 to about 90 rows."""
    rng = np.random.default_rng([8, seed])
    data = _rows(rng)
    kind = rng.choice(["one factor", "residual", "both", "nested", "crossed", "mixed"])
    residual, by = "independent", None
    if kind in ("residual", "both"):
        names = [n for n, one in RESIDUALS.items() if kind == "residual" or not one.alone]
        residual = str(rng.choice(names[1:]))
        by = "arm" if RESIDUALS[residual].by and rng.random() < 0.35 else None
    terms = _terms(kind, rng)
    fixed = [c for c in ("x", "t", "arm") if rng.random() < 0.5]
    if rng.random() < 0.1:
        data["twice"] = 2 * data["x"]
        fixed = ["x", "twice", *[c for c in fixed if c != "x"]]
    elif rng.random() < 0.1:
        data["near"] = data["x"] + 1e-6 * rng.normal(size=len(data))
        fixed = ["x", "near", *[c for c in fixed if c != "x"]]
    if rng.random() < 0.15:
        data["x"] *= 10.0 ** rng.integers(-5, 6)
    data["y"] = _response(data, kind, rng)
    weights = "w" if rng.random() < 0.2 else None
    offset = "o" if rng.random() < 0.15 else None
    reml = bool(rng.random() < 0.6)
    return Problem(seed, data, tuple(fixed), terms, residual, by, weights, offset, reml)


def _rows(rng: np.random.Generator) -> pd.DataFrame:
    m, T = int(rng.integers(4, 19)), int(rng.integers(2, 6))
    missing = rng.choice([0.0, 0.1, 0.3])
    rows = [
        (i, "ab"[i % 2], v, t, i % max(2, m // 3))
        for i in range(m)
        for v, t in zip(range(1, T + 1), np.cumsum(rng.uniform(0.2, 2.0, T)), strict=True)
        if rng.random() >= missing or (i < 2)
    ]
    d = pd.DataFrame(rows, columns=["id", "arm", "v", "t", "site"])
    n = len(d)
    d["item"] = rng.integers(0, int(rng.integers(2, 8)), n)
    d["x"], d["z"] = rng.normal(size=n), rng.uniform(0.4, 3.0, n)
    d["w"], d["o"] = rng.uniform(0.3, 3.0, n), rng.normal(size=n)
    return d


def _terms(kind: str, rng: np.random.Generator) -> tuple[Term, ...]:
    def term(*group: str, slopes: float = 0.4) -> Term:
        if rng.random() >= slopes:
            return Term("us", ("1",), group)
        columns = ("1", str(rng.choice(["t", "z"])))
        return Term(str(rng.choice(STRUCTURES)), columns, group)

    if kind == "residual":
        return ()
    if kind in ("one factor", "both"):
        return (term("id", slopes=0.6 if kind == "one factor" else 0.2),)
    if kind == "nested":
        return term("site", slopes=0.2), term("id", slopes=0.2)
    if kind == "crossed":
        return term("id", slopes=0.2), term("item", slopes=0.2)
    return term("site", slopes=0.0), term("id", slopes=0.2), term("item", slopes=0.0)


def _response(d: pd.DataFrame, kind: str, rng: np.random.Generator) -> np.ndarray:
    n = len(d)
    sizes = [0.0, 0.1, 1.0, 1.0, 5.0, 30.0]
    y = rng.choice(sizes) * rng.normal(size=d["id"].max() + 1)[d["id"]]
    y += rng.choice(sizes[:4]) * rng.normal(size=d["id"].max() + 1)[d["id"]] * d["t"]
    if kind in ("nested", "mixed"):
        y += rng.choice(sizes) * rng.normal(size=d["site"].max() + 1)[d["site"]]
    if kind in ("crossed", "mixed"):
        y += rng.choice(sizes) * rng.normal(size=d["item"].max() + 1)[d["item"]]
    rho = rng.uniform(-0.7, 0.95)
    noise = rng.normal(size=n)
    same = d["id"].to_numpy()[1:] == d["id"].to_numpy()[:-1]
    for k in np.flatnonzero(same) + 1:
        noise[k] = rho * noise[k - 1] + np.sqrt(1 - rho**2) * noise[k]
    noise *= np.exp(rng.choice([0.0, 0.5]) * d["z"].to_numpy())
    noise *= np.where(d["arm"] == "a", 1.0, rng.choice([1.0, 3.0]))
    y = np.asarray(y + noise)
    return (y + 3) * 10.0 ** (rng.integers(-6, 7) if rng.random() < 0.15 else 0)
