"""Keep a search within a range that has an edge: a small part of a log determinant on top.

Where a covariance matrix C has to be positive definite, and no coordinates make it so by
themselves, l + w log det C is searched for falling weights w (a barrier; Nocedal and Wright 2006,
section 19.6). Its maximum is short of that of l by w for each eigenvalue of C that vanishes, so the
last weight is below what matters. Near the edge the barrier's curvature is of the order 1 / w along
the way out and of order one along the edge: steps are taken in the metric of both
(docs/residual.md, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.log_determinant import LogDeterminant


@dataclass(frozen=True)
class Barrier:
    """A weighted log determinant.

    Attributes
    ----------
    weight : float
    curvature : float
        The weight in ``bent``. Where the weight has just fallen the one before it tells better
        where the next maximum is: eigenvalues are still in proportion to it.
    """

    weight: float
    curvature: float


def metric(logdet: LogDeterminant, barrier: Barrier, scale: Array) -> tuple[Array, Array]:
    """Symmetric root W of (I + B)^-1 for the scaled Hessian B of a barrier, and W B W.

    Neither loses digits where B has eigenvalues far apart.
    """
    values, vectors = np.linalg.eigh(barrier.curvature * logdet.bent * np.outer(scale, scale))
    values = np.maximum(values, 0.0)
    W = (vectors / np.sqrt(1.0 + values)) @ vectors.T
    return W, (vectors * (values / (1.0 + values))) @ vectors.T
