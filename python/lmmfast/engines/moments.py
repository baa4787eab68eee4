"""The engine for independent residuals of one grouping factor: a few numbers of each cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.engines.engine import BaseEngine
from lmmfast.engines.totals import Totals, unflatten
from lmmfast.packing.compress import CompressedClusters


class Evaluated(NamedTuple):
    """What a pass goes over: the clusters, or less with the same totals.

    Attributes
    ----------
    blocks : ndarray (n_blocks, n_fields, 8)
        As in `CompressedClusters`.
    counts : ndarray (n_blocks, 8) or None
        For how many clusters of its design each one stands; None: for itself.
    n_designs : int or None
        Number of different R_i.
    z_in_x : list of int
        As in `CompressedClusters`.
    """

    blocks: Array
    counts: Array | None = None
    n_designs: int | None = None
    z_in_x: Sequence[int] = ()


class MomentsEngine(BaseEngine):
    """Compressed clusters, Woodbury, lanes and threads: cost free of the number of rows.

    Parameters
    ----------
    share : bool
        Whether clusters of one design may be put together (docs/algorithm.md, eq. 2.16).
    """

    name = "moments"
    #: Whether the compiled search can go over its clusters.
    compiled = True
    # Over many clusters a search takes three to six.
    expected_passes = 3

    def __init__(self, clusters: CompressedClusters, n_threads: int, share: bool = True) -> None:
        self.clusters = clusters
        self.n_threads = n_threads
        self._share = share

    @cached_property
    def evaluated(self) -> Evaluated:
        """What passes go over; planned when the first one is wanted."""
        c = self.clusters
        shared = None
        if self._share:
            shared = core.share(c.blocks, c.q, c.p1, c.m, self.n_threads, self.expected_passes)
        return Evaluated(c.blocks, z_in_x=c.z_in_x) if shared is None else Evaluated(*shared)

    @property
    def n_designs(self) -> int | None:
        """Number of designs that clusters were put together by; None: they were not."""
        return self.evaluated.n_designs

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'."""
        c, (blocks, counts, _, z_in_x) = self.clusters, self.evaluated
        flat = core.evaluate(
            blocks, c.q, c.p1, Lambda, c.perp, with_kr, self.n_threads, counts, z_in_x
        )
        return unflatten(flat, c.q, c.p1, with_kr)

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> Array:
        """Predictions of root u (m, q), where b = Lambda u, for c = (-beta, 1)."""
        data = self.clusters
        return np.asarray(
            core.random_effects(
                data.blocks, data.q, data.p1, data.m, Lambda, root, c, self.n_threads
            )
        )

    def random_effects_cov(self, Lambda: Array, root: Array) -> Array:
        """Var(root u | y) / sigma2, (m, q, q)."""
        data = self.clusters
        return np.asarray(
            core.random_effects_covariance(
                data.blocks, data.q, data.p1, data.m, Lambda, root, self.n_threads
            )
        )
