"""What ``scale(x)`` and ``center(x)`` learn from each of many segments of the rows, all at once.

Both are affine, with numbers that formulaic keeps in a state and that may be arrays with a value
for each row: one evaluation then serves the rows of all segments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.frame import RowView
from lmmfast.formula.factors import is_affine
from lmmfast.formula.materialise import evaluate_expressions
from lmmfast.formula.spec import FormulaSpec, Part

#: What a state says of a call that changes nothing.
_IDENTITY = {"ddof": 1, "center": None, "scale": None}


@dataclass(frozen=True, eq=False)
class Affine:
    """What one call has learnt from each of S segments.

    Attributes
    ----------
    ddof : float
    center, scale : ndarray (S,) or None
        What is subtracted, then divided by; None: nothing.
    """

    ddof: float
    center: Array | None
    scale: Array | None

    def at(self, segments: Any) -> dict[str, Any]:
        """Return formulaic's state for one segment, or for rows with these segments."""
        return {
            "ddof": self.ddof,
            "center": None if self.center is None else self.center[segments],
            "scale": None if self.scale is None else self.scale[segments],
        }


@dataclass(frozen=True, eq=False)
class SegmentedSpec(FormulaSpec):
    """A spec with states by segment.

    Attributes
    ----------
    states : dict of Affine
        By the text of the call.
    row_segments : ndarray (n,) or None
        Segment of each row of the table whose columns are made.
    """

    states: dict[str, Affine] | None = None
    row_segments: NDArray[np.intp] | None = None

    def models(self, parts: dict[str, Part], view: RowView) -> dict[str, Any]:
        """Return formulaic's specifications with the states of the rows of a view."""
        assert self.row_segments is not None
        return _with_states(parts, self.states, self.row_segments[view.rows])


def with_rows(
    spec: FormulaSpec, states: dict[str, Affine], row_segments: NDArray[np.intp]
) -> FormulaSpec:
    """Return a spec for the rows of a table whose segments are known."""
    if not states:
        return spec
    return SegmentedSpec(**vars(spec), states=states, row_segments=row_segments)


def of_segment(spec: FormulaSpec, states: dict[str, Affine], segment: int) -> FormulaSpec:
    """Return the spec of one segment."""
    if not states:
        return spec
    evaluated = {name: part for name, part in spec.parts.items() if part.model is not None}
    models = _with_states(evaluated, states, segment)
    parts = {
        name: replace(part, model=models.get(name, part.model)) for name, part in spec.parts.items()
    }
    return replace(spec, parts=parts)


def learn_by_segment(
    spec: FormulaSpec, learning: Iterable[str], view: RowView, starts: NDArray[np.int64]
) -> dict[str, Affine] | None:
    """Learn the states of each segment.

    Parameters
    ----------
    learning : iterable of str
        Factors that learn something, or look at all rows.
    view : RowView
        All rows used, in the order of their segments.
    starts : ndarray (S + 1,)
        First row of each segment among them.

    Returns
    -------
    dict of Affine or None
        By the text of the call. None: the formula learns other things.
    """
    context = spec.formula.context
    if not all(is_affine(expr, context) for expr in learning):
        return None
    learnt: dict[str, dict[str, Any]] = {}
    for part in spec.parts.values():
        learnt.update(part.model.transform_state if part.model is not None else {})
    if not learnt:
        return None
    names = sorted(frozenset().union(*(part.evaluated for part in spec.parts.values())))
    identity = {expr: dict(_IDENTITY) for expr in learnt}
    values = evaluate_expressions(identity, view.to_pandas(names), context)
    return {
        expr: _learn(values[expr], starts, state["ddof"], *(state[k] is not None for k in _KINDS))
        for expr, state in learnt.items()
    }


_KINDS = ("center", "scale")


def usable(states: dict[str, Affine], n_segments: int) -> NDArray[np.bool_]:
    """Tell the segments (S,) whose states are finite, and no variable of theirs is constant."""
    good = np.ones(n_segments, dtype=bool)
    for state in states.values():
        if state.center is not None:
            good &= np.isfinite(state.center)
        if state.scale is not None:
            good &= np.isfinite(state.scale) & (state.scale > 0)
    return good


def _learn(
    values: Array, starts: NDArray[np.int64], ddof: float, center: bool, scale: bool
) -> Affine:
    """Means and standard deviations as formulaic has them: about zero where nothing is centred."""
    sizes = np.diff(starts)
    filled = np.flatnonzero(sizes)

    def sums(x: Array) -> Array:
        out = np.full(len(sizes), np.nan)
        if len(filled):
            out[filled] = np.add.reduceat(x, starts[filled])
        return out

    means = deviations = None
    with np.errstate(all="ignore"):
        if center:
            means = sums(values) / sizes
            means += sums(values - np.repeat(means, sizes)) / sizes
            values = values - np.repeat(means, sizes)
        if scale:
            deviations = np.sqrt(sums(values**2) / (sizes - ddof))
    return Affine(ddof, means, deviations)


def _with_states(
    parts: dict[str, Part], states: dict[str, Affine] | None, segments: Any
) -> dict[str, Any]:
    assert states is not None
    own = {expr: state.at(segments) for expr, state in states.items()}
    return {name: part.model.update(transform_state=own) for name, part in parts.items()}
