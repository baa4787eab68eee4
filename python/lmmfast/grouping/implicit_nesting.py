"""Labels that count within the levels of another factor: a warning, where nesting may be meant."""

from __future__ import annotations

import itertools
import re
import warnings

import numpy as np

from lmmfast.errors import NestingWarning
from lmmfast.grouping.levels import Levels

# With more labels than this nobody counts within groups by letters.
_MOST_LETTERS = 26
MANY_CELLS = 10_000
_COUNTER = re.compile(r"[^\d]*?(\d+)\Z")


def warn_of_implicit_nesting(levels: Levels, stacklevel: int) -> None:
    """Warn where level 1 of a factor occurs within several levels of another, and 2, and so on.

    Casks a, b, c of each of ten batches are thirty casks, but the column says three: then
    ``(1 | batch) + (1 | cask)`` takes casks for crossed with batches, which may be meant or not.
    Labels are taken for counters if they are 1, 2, … or a, b, …, within each outer level from the
    beginning without a gap, and if some combinations have several rows, as units of their own have.
    """
    found: set[frozenset[int]] = set()
    for inner, outer in itertools.product(reversed(range(len(levels.names))), repeat=2):
        nested = (inner, outer) in levels.parents or (outer, inner) in levels.parents
        pair = frozenset((inner, outer))
        if inner == outer or nested or pair in found or not _counts_within(levels, inner, outer):
            continue
        found.add(pair)
        a, b = levels.names[outer], levels.names[inner]
        warnings.warn(
            f"levels of {b!r} are counted anew within each level of {a!r}, and are taken as "
            f"crossed with it: if {b} {levels.labels[inner][0]} of one {a} has nothing to do with "
            f"that of another, write (1 | {a}/{b}) for {b} within {a}, or give the levels labels "
            "of their own",
            NestingWarning,
            stacklevel=stacklevel,
        )


def _counts_within(levels: Levels, inner: int, outer: int) -> bool:
    m = levels.counts[inner]
    if m >= levels.n or not _are_counters(levels, inner):
        return False
    if levels.counts[outer] * m > 4 * levels.n + MANY_CELLS:
        return False  # few of the combinations can occur
    cells = np.bincount(
        levels.codes[outer] * m + levels.codes[inner], minlength=levels.counts[outer] * m
    )
    pairs = np.flatnonzero(cells)
    if len(pairs) == levels.n:  # one row for each combination: an experiment with two factors
        return False
    place, rank = pairs // m, _ranks(levels, inner)[pairs % m]
    sizes = np.bincount(place, minlength=levels.counts[outer])
    highest = np.full(levels.counts[outer], -1)
    np.maximum.at(highest, place, rank)
    return bool((highest + 1 == sizes).all() and (sizes > 1).any())


def _are_counters(levels: Levels, factor: int) -> bool:
    """Whether the labels are 1, 2, 3, … or a, b, c, … in some order."""
    return _ranks(levels, factor)[0] >= 0


def _ranks(levels: Levels, factor: int) -> np.ndarray:
    """Number of each label from 0, (m,); all -1 if they do not count."""
    m = levels.counts[factor]
    labels = np.asarray(levels.labels[factor])
    ranks = np.full(m, -1)
    if labels.dtype.kind in "iuf":
        ranks = labels - labels.min()
    elif m <= _MOST_LETTERS and all(len(str(one)) == 1 and str(one).isalpha() for one in labels):
        letters = np.array([ord(str(one).lower()) for one in labels])
        ranks = letters - ord("a")
    elif m < 10_000:
        found = [_COUNTER.match(str(one)) for one in labels]
        if all(found):
            numbers = np.array([int(one.group(1)) for one in found if one])
            ranks = numbers - numbers.min()
    complete = np.array_equal(np.sort(ranks), np.arange(m))
    return ranks.astype(np.int64) if complete else np.full(m, -1)
