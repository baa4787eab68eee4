"""What engines make of clusters: sums over them at a relative D, and how these add."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmfast.arrays import Array


@dataclass(frozen=True)
class Totals:
    """Sums over clusters at Vdot = V / sigma2, in the working basis; totals of two sets add.

    With K = q (q + 1) / 2 entries of vech(Ddot) and A = [X y] (n, p + 1), see
    docs/algorithm.md, section 2.

    Attributes
    ----------
    logdet : float
        Sum of log|Vdot_i|.
    gram : ndarray (p + 1, p + 1)
        Sum of A_i' Vdot_i^-1 A_i.
    trace : ndarray (K,)
        Sum of tr(Vdot_i^-1 dV_k).
    quad : ndarray (K, p + 1, p + 1)
        Sum of A_i' Vdot_i^-1 dV_k Vdot_i^-1 A_i.
    info : ndarray (K, K)
        Sum of tr(Vdot_i^-1 dV_k Vdot_i^-1 dV_l) / 2, or what stands for it: see `average`.
    kr : ndarray (K, K, p + 1, p + 1) or None
        Sum of A_i' Vdot_i^-1 dV_k Vdot_i^-1 dV_l Vdot_i^-1 A_i.
    average : bool
        Whether ``info`` is the average of the observed and the expected information at the beta
        and sigma2 of this point: Gilmour, Thompson and Cullis (1995), Biometrics 51, 1440-1450.
    shift : ndarray (p,) or None
        The totals are of A = [X, y - X shift]; None: zeros.
    """

    logdet: float
    gram: Array
    trace: Array
    quad: Array
    info: Array
    kr: Array | None = None
    average: bool = False
    shift: Array | None = None

    def __add__(self, other: Totals) -> Totals:
        """Totals of both sets of clusters."""
        return Totals(
            self.logdet + other.logdet,
            self.gram + other.gram,
            self.trace + other.trace,
            self.quad + other.quad,
            self.info + other.info,
            None if self.kr is None or other.kr is None else self.kr + other.kr,
            self.average or other.average,
        )


def unflatten(flat: Array, q: int, p1: int, with_kr: bool) -> Totals:
    """Views into the flat buffer of the kernels, in the order of the C++ `engines/totals.hpp`."""
    K = q * (q + 1) // 2
    shapes: list[tuple[int, ...]] = [(1,), (K,), (K, K), (p1, p1), (K, p1, p1)]
    if with_kr:
        shapes.append((K, K, p1, p1))
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(flat, ends[:-1])
    logdet, trace, info, gram, quad, *kr = (
        part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
    )
    return Totals(float(logdet[0]), gram, trace, quad, info, kr[0] if kr else None)


def add_local(totals: Totals, flat: Array, places: list[int]) -> None:
    """Add a flat buffer of the kernels, whose parameters stand at `places`, to totals."""
    K, p1 = len(places), totals.gram.shape[0]
    whole: Any = slice(None)
    one = whole if K == len(totals.trace) else places
    two = whole if K == len(totals.trace) else np.ix_(places, places)
    start = 1

    def part(*shape: int) -> Array:
        nonlocal start
        start += (size := math.prod(shape))
        return flat[start - size : start].reshape(shape)

    object.__setattr__(totals, "logdet", totals.logdet + float(flat[0]))
    totals.trace[one] += part(K)
    totals.info[two] += part(K, K)
    totals.gram[:] += part(p1, p1)
    totals.quad[one] += part(K, p1, p1)
    if totals.kr is not None:
        totals.kr[two] += part(K, K, p1, p1)
