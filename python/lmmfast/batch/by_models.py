"""What the fits of many segments predict with: shared by those in the core, else one of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.tables import Table
from lmmfast.data.text_labels import TextLabels
from lmmfast.formula.by_segment import Affine, of_segment, with_rows
from lmmfast.formula.spec import FormulaSpec
from lmmfast.prediction.lookup import GroupLookup
from lmmfast.prediction.new_rows import FactorEffects, Predictor


@dataclass(frozen=True, eq=False)
class SharedModel:
    """Segments whose models have the same columns.

    Attributes
    ----------
    spec : FormulaSpec
    states : dict of Affine
        What transforms have learnt from each segment that the spec was made for.
    segments : ndarray of int (S,)
        Positions among all segments, ascending.
    local : ndarray of int (S,)
        Positions among those that the spec was made for.
    beta : ndarray (S, p)
    effects : ndarray (M, q)
        Predictions of the random effects, segment by segment.
    groups : ndarray of int (M,)
        Their groups, positions among ``labels``, ascending within a segment.
    group_starts : ndarray of int (S + 1,)
        First effects of each segment.
    labels : ndarray or TextLabels (L,)
    """

    spec: FormulaSpec
    states: dict[str, Affine]
    segments: NDArray[np.intp]
    local: NDArray[np.intp]
    beta: Array
    effects: Array
    groups: NDArray[np.int64]
    group_starts: NDArray[np.int64]
    labels: NDArray[np.generic] | TextLabels

    @cached_property
    def _lookup(self) -> GroupLookup:
        return GroupLookup(self.labels)

    @cached_property
    def _pairs(self) -> NDArray[np.int64]:
        """Segment and group of each row of ``effects``, as one number, ascending."""
        segment = np.repeat(np.arange(len(self.segments)), np.diff(self.group_starts))
        return segment * len(self.labels) + self.groups

    def one(self, k: int) -> Predictor:
        """What the k-th segment predicts with, level "conditional"."""
        own = slice(int(self.group_starts[k]), int(self.group_starts[k + 1]))
        labels = np.asarray(self.labels)[self.groups[own]]
        term = self.spec.formula.factor_names[0]
        q = self.effects.shape[1]
        return Predictor(
            spec=of_segment(self.spec, self.states, int(self.local[k])),
            keep=np.arange(self.beta.shape[1]),
            beta=self.beta[k],
            factors=(0,),
            effects=(FactorEffects(term, np.arange(q), self.effects[own], labels),),
        )

    def predict(
        self, rows: Table, segment: NDArray[np.intp], random: bool
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Predict rows of these segments.

        Parameters
        ----------
        segment : ndarray of int (n,)
            Position of each row's segment among these.
        random : bool
            With the random effects.

        Returns
        -------
        values (n,), unknown (n,)
            NaN where something is missing; rows whose group the fit of their segment did not have.
        """
        spec = with_rows(self.spec, self.states, self.local[segment])
        batch = spec.columns(rows, random=random)
        beta, out = self.beta[segment], np.zeros(len(segment))
        for j, x in enumerate(batch.X):
            out += beta[:, j] * x
        unknown = np.zeros(len(segment), dtype=bool)
        if random:
            (keys,) = spec.group_keys(rows)
            at = self._positions(segment, self._lookup.rows(keys, len(segment)))
            for k, z in enumerate(batch.Z):
                out += np.where(at >= 0, z * self.effects[at, k], 0.0)
            unknown = at < 0
            if keys.missing is not None:
                unknown &= ~keys.missing
                out[keys.missing] = np.nan
        if batch.offset is not None:
            out += batch.offset
        if batch.missing is not None:
            out[batch.missing] = np.nan
        return out, unknown

    def _positions(self, segment: NDArray[np.intp], group: NDArray[np.intp]) -> NDArray[np.intp]:
        """Rows (n,) of ``effects``; -1 where a segment has no such group."""
        wanted = segment * len(self.labels) + group
        at = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
        return np.where((group >= 0) & (self._pairs[at] == wanted), at, -1)


@dataclass
class SegmentModels:
    """What all segments predict with.

    Attributes
    ----------
    shared : list of SharedModel
    alone : dict of int to Predictor
        Of segments that were fitted by themselves, level "conditional".
    """

    shared: list[SharedModel] = field(default_factory=list)
    alone: dict[int, Predictor] = field(default_factory=dict)

    def one(self, segment: int) -> Predictor | None:
        """What a segment predicts with, level "conditional"; None: it has no fit."""
        if segment in self.alone:
            return self.alone[segment]
        for model in self.shared:
            k = int(np.searchsorted(model.segments, segment))
            if k < len(model.segments) and model.segments[k] == segment:
                return model.one(k)
        return None

    def places(self, n_segments: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Shared model of each segment (S,), and its position there; -1 where there is none."""
        which = np.full((2, n_segments), -1, dtype=np.intp)
        for number, model in enumerate(self.shared):
            which[0, model.segments] = number
            which[1, model.segments] = np.arange(len(model.segments))
        return which[0], which[1]


def without_effects(predictor: Predictor) -> Predictor:
    """Return what predicts at level "population"."""
    return replace(predictor, factors=(), effects=())
