"""A generator for each replicate: the same numbers however many are drawn at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmfast.errors import DataError


def entropy_of(seed: Any) -> int:
    """Return the number that the generators of a run are made of.

    Parameters
    ----------
    seed : int, Generator or None
        As of ``numpy.random.default_rng``; None: from the operating system.

    Raises
    ------
    DataError
        Something else, or a negative number.
    """
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**63))
    if seed is None:
        found = np.random.SeedSequence().entropy
        assert isinstance(found, int)
        return found
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise DataError(f"seed={seed!r}: give a whole number from 0 on, a numpy Generator, or None")
    return int(seed)


def generator(entropy: int, *place: int) -> np.random.Generator:
    """Return the generator of one replicate, independent of those of all others."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=place))


def count(B: Any, what: str = "B") -> int:
    """Read a number of replicates.

    Raises
    ------
    DataError
        No positive whole number, or one beyond 10^8.
    """
    if not isinstance(B, int | np.integer) or isinstance(B, bool) or not 1 <= B <= 10**8:
        raise DataError(f"{what}={B!r}: give the number of replicates, a positive whole number")
    return int(B)
