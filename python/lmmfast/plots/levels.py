"""What curves of a fit are of: which grouping factor, which predictions, which colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.plots.axes import SUBJECT

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

#: So many levels have colours that can be told apart, and entries of their own in a legend.
FEW_COLOURS = 8


@dataclass(frozen=True)
class CurveLevel:
    """A level at which curves are drawn.

    Attributes
    ----------
    factor : int
        Grouping factor that has a curve for each of its levels.
    name : str
    level : str
        That of the predictions.
    outermost : int or None
        Factor that the curves are coloured by.
    innermost : bool
        Whether the factor is that of the subjects: no other has more levels.
    """

    factor: int
    name: str
    level: str
    outermost: int | None
    innermost: bool


def curve_level(fit: LMMResult, level: str | None) -> CurveLevel:
    """Find out what curves at a level are of; by default those of the innermost factor.

    Of crossed factors none is innermost: then of the one with the most levels.

    Raises
    ------
    ValueError
        No such level.
    """
    names = list(fit._grouping)
    innermost = max(range(len(names)), key=lambda k: (fit._grouping[names[k]][0], k))
    if level in (None, "conditional"):
        of = names[innermost]
        level = of if level is None and len(names) > 1 else "conditional"
    elif level in names:
        assert level is not None
        of, level = level, level if len(names) > 1 else "conditional"
    else:
        choices = ", ".join(map(repr, [*names, "conditional"]))
        raise ValueError(f"level={level!r}: choose one of {choices}")
    outer = fit.nested_in[of]
    factor, outermost = names.index(of), names.index(outer[0]) if outer else None
    return CurveLevel(factor, of, level, outermost, factor == innermost)


def row_labels(fit: LMMResult, frame: pd.DataFrame, factor: int) -> NDArray[Any]:
    """Level of a grouping factor of each row of new data, (n,)."""
    (keys,) = fit.spec.group_keys(frame, [factor])
    return np.asarray(keys.values if keys.labels is None else keys.labels[keys.values])


def colours(fit: LMMResult, outermost: int | None, curves: Sequence[pd.DataFrame]) -> list[Any]:
    """Colour of each curve, and what it says in a legend: (colour, label or None) each."""
    if outermost is None:
        return [(SUBJECT, None)] * len(curves)
    from matplotlib import colormaps

    name = list(fit._grouping)[outermost]
    labels = [row_labels(fit, curve.iloc[:1], outermost)[0] for curve in curves]
    shown = sorted(set(labels))
    few = len(shown) <= FEW_COLOURS
    ramp = colormaps["Dark2" if few else "turbo"]
    palette = {
        label: ramp(k) if few else ramp(0.04 + 0.92 * k / (len(shown) - 1))
        for k, label in enumerate(shown)
    }
    said = {label: labels.index(label) for label in shown}
    return [
        (palette[label], f"{name} {label}" if few and said[label] == k else None)
        for k, label in enumerate(labels)
    ]
