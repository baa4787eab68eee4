"""The working basis of a fit, in which columns of X that will be dropped have no part."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.design.design import Design
from lmmfast.errors import DataError
from lmmfast.packing.basis import Basis, choose_basis
from lmmfast.packing.compress import SampleMisledError, better_basis
from lmmfast.search.estimates import independent_columns

Packed = TypeVar("Packed")

#: How often the working residual is moved, where what it was chosen by misled.
MOST_MOVES = 2


def settle(
    design: Design,
    pack: Callable[[Basis], tuple[Packed, Array, Basis]],
    trust_sample: bool = False,
) -> tuple[Packed, Basis, NDArray[np.intp]]:
    """Pack the rows in a basis, and again in another until nothing speaks against it.

    Another is needed where columns of X that depend on others have a part in y or in other columns,
    and where X explains nearly all of what was taken for the residual.

    Parameters
    ----------
    pack : callable
        Packs the rows in a basis; returns what it made, cross-products of [X y] (p + 1, p + 1), and
        the basis that they are in.
    trust_sample : bool
        Whether columns may be taken for constant that are so in a sample; ``pack`` checks it then.

    Returns
    -------
    packed, basis, keep
        ``keep``: columns of X that are linearly independent.

    Raises
    ------
    DataError
        There are not more rows than such columns.
    """
    excluded, moves = np.empty(0, dtype=np.intp), 0
    basis = choose_basis(design, excluded, trust_sample)
    while True:
        try:
            packed, gram, basis = pack(basis)
        except SampleMisledError:
            trust_sample = False
            basis = choose_basis(design, excluded, trust_sample)
            continue
        keep = independent_columns(gram[:-1, :-1], basis)
        dropped = np.setdiff1d(np.arange(len(gram) - 1), keep)
        if len(basis.involved(dropped)):
            excluded = np.union1d(excluded, dropped)
            basis = choose_basis(design, excluded, trust_sample)
            continue
        better = better_basis(gram, basis) if moves < MOST_MOVES else None
        if better is None:
            check_more_rows(design, keep)
            return packed, basis, keep
        basis, moves = better, moves + 1


def check_more_rows(design: Design, keep: NDArray[np.intp]) -> None:
    """Raise a DataError unless there are more rows than fixed effects."""
    if len(keep) >= design.n_obs:
        raise DataError(
            f"{len(keep)} fixed effects for {design.n_obs} rows: there must be more rows"
        )
