"""Replicates of a fit row by row: responses are simulated, and the model is fitted to each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lmmfast.errors import LmmError, LmmWarning
from lmmfast.likelihood.simulate import simulate_each
from lmmfast.resampling.seeds import generator

if TYPE_CHECKING:
    from lmmfast.arrays import Array
    from lmmfast.result import LMMResult

#: Numbers of responses that are in memory at a time, and most responses.
NUMBERS, MOST_AT_ONCE = 1 << 23, 256


def responses(fit: LMMResult, entropy: int, places: Sequence[tuple[int, ...]]) -> Iterator[Array]:
    """Responses (n_obs, k) drawn from a fit, some at a time: one for each place of the seed."""
    at_once = max(1, min(MOST_AT_ONCE, NUMBERS // fit.nobs))
    for first in range(0, len(places), at_once):
        here = places[first : first + at_once]
        yield simulate_each(fit, [generator(entropy, *place) for place in here])


def refits(
    fit: LMMResult, entropy: int, places: Sequence[tuple[int, ...]]
) -> Iterator[tuple[LMMResult | None, str]]:
    """Refit each response: the fit, or None, and how it ended."""
    for block in responses(fit, entropy, places):
        for y in block.T:
            yield refit_or_reason(fit, y)


def refit_or_reason(fit: LMMResult, y: Array) -> tuple[LMMResult | None, str]:
    """Refit a response; where that cannot be done, why. Its warnings are in the status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        try:
            new = fit.refit(y)
        except LmmError as error:
            return None, str(error)
    return new, new.certificate.status
