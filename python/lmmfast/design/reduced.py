"""The design of a model with some of the random effects of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance.structures import Unstructured
from lmmfast.covariance.terms import Term
from lmmfast.data.batch import Batch
from lmmfast.data.frame import Rows
from lmmfast.data.keys import GroupKeys
from lmmfast.design.design import Design, find_empty_effects
from lmmfast.design.view import DesignView
from lmmfast.residual.kinds import Independent
from lmmfast.residual.structure import ResidualStructure

#: Columns of Z whose sum is a column of the reduced model.
Sum = tuple[int, ...]


class ReducedDesign(DesignView):
    """Another design with less random effects.

    Parameters
    ----------
    whole : Design
    effects : sequence of (list of str, list of tuple of int)
        Of each term of the whole the names of the effects that it keeps, and for each the columns
        of Z that are summed: one, or indicators of all levels of a factor. Terms may keep none.
    """

    def __init__(
        self, whole: Design, effects: Sequence[tuple[Sequence[str], Sequence[Sum]]]
    ) -> None:
        super().__init__(whole)
        self._effects = list(effects)
        self._terms = tuple(
            _with_names(term, tuple(names))
            for term, (names, _) in zip(whole.terms, effects, strict=True)
            if names
        )
        self._sums = [own for _, sums in effects for own in sums]
        used = {term.group for term in self._terms}
        names = list(whole.factor_names)
        self._places = [k for k, name in enumerate(names) if name in used] or [0]

    @property
    def terms(self) -> tuple[Term, ...]:
        """Random-effects terms."""
        return self._terms

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names of the grouping factors; the first of the whole where there are no effects."""
        return tuple(self._whole.factor_names[k] for k in self._places)

    @property
    def group_name(self) -> str:
        """Name of the grouping factor, or names of several."""
        return ", ".join(self.factor_names)

    @property
    def factor_keys(self) -> list[GroupKeys]:
        """Group of each row used, for each grouping factor."""
        return [self._whole.factor_keys[k] for k in self._places]

    @property
    def keys(self) -> GroupKeys:
        """Group of each row used, in the first grouping factor."""
        return self.factor_keys[0]

    @property
    def residual(self) -> ResidualStructure | None:
        """Structure of the residuals; independent where nothing else is left."""
        own = self._whole.residual
        return Independent() if own is None and not self._terms else own

    def batch(self, rows: Rows) -> Batch:
        """Columns for some of the rows used."""
        batch = self._whole.batch(rows)
        Z = [
            batch.Z[own[0]] if len(own) == 1 else np.sum([batch.Z[k] for k in own], axis=0)
            for own in self._sums
        ]
        return replace(batch, Z=Z)

    def empty_effects(self) -> list[int]:
        """Columns of Z that are zero in all rows used."""
        return find_empty_effects(self)

    def without_effects(self, columns: Sequence[int]) -> ReducedDesign:
        """Return the same design without some columns of Z."""
        effects, first = [], 0
        for names, sums in self._effects:
            left = [k for k in range(len(names)) if first + k not in columns]
            first += len(names)
            effects.append(([names[k] for k in left], [sums[k] for k in left]))
        return ReducedDesign(self._whole, effects)

    def with_response(self, y: NDArray[np.float64]) -> ReducedDesign:
        """Return the same design with another response (n_obs,) for the rows used."""
        return ReducedDesign(self._whole.with_response(y), self._effects)


def _with_names(term: Term, names: tuple[str, ...]) -> Term:
    """The term with some of its effects: a single one needs no structure."""
    structure = Unstructured() if len(names) == 1 else term.structure
    return Term(term.group, names, structure)
