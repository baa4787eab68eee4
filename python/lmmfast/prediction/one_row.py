"""The prediction of a single row in plain Python: no arrays are made.

The order of the arithmetic is that of `lmmfast.prediction.new_rows`, so that every bit is the same.
What is out of the ordinary (a missing value, an unknown level, a type that is not plain, a formula
with functions) is left to that module: then `OneRow.predict` returns None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmfast.design.from_arrays import ArraySpec
from lmmfast.formula.spec import FormulaSpec, Indicator
from lmmfast.prediction.new_rows import Predictor

#: Numbers beyond these are not plain: integers of more than 64 bits, NaN, infinity.
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True)
class OneRow:
    """How to predict one row.

    Attributes
    ----------
    predictor : Predictor
    numbers : frozenset of str
        Columns of numbers that the row must have.
    levels : dict of dict
        Factor columns that it must have: the code of each level.
    X, Z : tuple of tuple of (str or Indicator)
        Factors of each column of X that the fit kept, and of each column of Z.
    groups : tuple of tuple of str
        Columns of each grouping factor that is asked for.
    offset : str or None
        Column that is added.
    """

    predictor: Predictor
    numbers: frozenset[str]
    levels: Mapping[str, Mapping[str, int]]
    X: tuple[tuple[str | Indicator, ...], ...]
    Z: tuple[tuple[str | Indicator, ...], ...]
    groups: tuple[tuple[str, ...], ...]
    offset: str | None = None

    def predict(self, row: Mapping[str, Any], new_levels: str) -> float | None:
        """Return the prediction of a row; None: it is not a plain one."""
        values = self._values(row)
        if values is None:
            return None
        out = 0.0
        predictor = self.predictor
        for coefficient, factors in zip(predictor.beta.tolist(), self.X, strict=True):
            out += coefficient * _product(factors, values)
        Z = self.Z
        for own, columns in zip(predictor.effects, self.groups, strict=True):
            label = _label(row, columns, own.lookup.labels.dtype)
            if label is None:
                return None
            position = own.lookup.position(label)
            if position < 0:
                if new_levels != "population":
                    return None
                continue
            for column, effect in zip(own.columns.tolist(), own.b[position].tolist(), strict=True):
                out += _product(Z[column], values) * effect
        if self.offset is not None:
            out += values[self.offset]
        return out if math.isfinite(out) else None

    def _values(self, row: Mapping[str, Any]) -> dict[str, float] | None:
        """Numbers of the row and codes of its levels; None where one is not plain."""
        values: dict[str, float] = {}
        for name in self.numbers:
            value: Any = row.get(name)
            if isinstance(value, np.generic):
                value = value.item()
            if type(value) not in (float, int, bool) or not _LEAST <= value <= _MOST:
                return None
            values[name] = float(value)
        for name, codes in self.levels.items():
            level = row.get(name)
            code = codes.get(level) if type(level) is str else None
            if code is None:
                return None
            values[name] = code
        return values


def _product(factors: tuple[str | Indicator, ...], values: Mapping[str, float]) -> float:
    product = 1.0
    for factor in factors:
        if isinstance(factor, str):
            product *= values[factor]
        else:
            product *= float(values[factor.column] == factor.code)
    return product


def _label(
    row: Mapping[str, Any], columns: tuple[str, ...], dtype: np.dtype[Any]
) -> int | float | str | None:
    """Label of the row's group; None where it is not a plain one of the labels' type."""
    parts: list[Any] = [row.get(name) for name in columns]
    parts = [part.item() if isinstance(part, np.generic) else part for part in parts]
    if len(parts) == 1:
        return parts[0] if _is_plain(parts[0], dtype) else None
    if not all(_is_plain(part, dtype) or type(part) is int for part in parts):
        return None
    return ":".join(_escaped(part) for part in parts)


def _is_plain(label: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a label is of the type of others: text, integers or double precision."""
    kind = type(label)
    if dtype.kind == "O":
        return kind is str
    if dtype.kind == "f":
        return dtype.itemsize == 8 and kind is float and math.isfinite(label)
    return dtype.kind in "iu" and kind is int and _LEAST <= label <= _MOST


def _escaped(part: int | str) -> str:
    """Return one part of a label, as `lmmfast.data.keys` writes it."""
    return str(part).replace("\\", "\\\\").replace(":", "\\:")


def one_row(predictor: Predictor) -> OneRow | None:
    """Find out how to predict a single row; None where its columns take more than products."""
    if isinstance(predictor.spec, ArraySpec):
        return _from_arrays(predictor, predictor.spec)
    return _from_formula(predictor, predictor.spec)


def _from_formula(predictor: Predictor, spec: FormulaSpec) -> OneRow | None:
    wanted = ["X", *(spec.z_parts if predictor.factors else [])]
    recipes = {name: [recipe.factors for recipe in spec.parts[name].recipes] for name in wanted}
    if any(factors is None for own in recipes.values() for factors in own):
        return None
    used = frozenset().union(*(spec.parts[name].columns for name in wanted))
    coded = {name: spec.levels[name] for name in sorted(used) if name in spec.levels}
    if any(type(level) is not str for levels in coded.values() for level in levels):
        return None  # categories of numbers
    numbers = used.difference(coded)
    if spec.number_levels.keys() & numbers:
        return None
    if spec.offset_name is not None:
        numbers = numbers.union([spec.offset_name])
    X = recipes.pop("X")
    return OneRow(
        predictor=predictor,
        numbers=numbers,
        levels={
            name: {level: code for code, level in enumerate(levels)}
            for name, levels in coded.items()
        },
        X=tuple(X[j] or () for j in predictor.keep.tolist()),
        Z=tuple(factors or () for own in recipes.values() for factors in own),
        groups=tuple(spec.formula.factors[k] for k in predictor.factors),
        offset=spec.offset_name,
    )


def _from_arrays(predictor: Predictor, spec: ArraySpec) -> OneRow | None:
    z_names: list[str | None] = []
    for names in spec.z_names if predictor.factors else ():
        z_names += [None] if names is None else list(names)
    if any(name in (*spec.x_names, *z_names) for name in spec.factor_names):
        return None  # a name of two values
    used = [name for k, name in enumerate(z_names) if k not in spec.left_out]
    numbers = {*spec.x_names, *(name for name in z_names if name is not None)}
    return OneRow(
        predictor=predictor,
        numbers=frozenset(numbers),
        levels={},
        X=tuple((spec.x_names[j],) for j in predictor.keep.tolist()),
        Z=tuple(() if name is None else (name,) for name in used),
        groups=tuple((spec.factor_names[k],) for k in predictor.factors),
    )
