"""Engines: anything that turns a relative root of D into totals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.packing.compress import CompressedClusters


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


class Engine(Protocol):
    """One way to factorise V."""

    name: str

    @property
    def n_designs(self) -> int | None:
        """Number of designs that clusters were put together by; None: they were not."""

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'."""

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> Array:
        """Predictions of root u (m, q), where b = Lambda u, for c = (-beta, 1)."""

    def random_effects_cov(self, Lambda: Array, root: Array) -> Array:
        """Var(root u | y) / sigma2, (m, q, q)."""


def engine_at(engine: Any, covariance: BlockCovariance, phi: Array) -> Engine:
    """Return the engine with all parameters but D as at phi: with the residual structure there."""
    kappa = covariance.kappa(phi)
    fixed: Engine = engine if kappa is None else engine.at(kappa)
    return fixed


def totals_at(engine: Any, covariance: BlockCovariance, phi: Array, with_kr: bool) -> Totals:
    """Totals at search parameters phi."""
    return engine_at(engine, covariance, phi).totals(covariance.Lambda(phi), with_kr)


#: Rows in the working basis, A (k, p + 1), Z (k, q), weights (k,) or None, for a slice or for
#: positions of rows: what engines of several grouping factors are built from.
Working = Callable[[Any], tuple[Array, Array, Array | None]]


class LevelsEngine(Protocol):
    """An engine for several grouping factors; effects are by factor."""

    name: str
    n_designs: None

    @property
    def gram(self) -> Array:
        """A'WA, (p + 1, p + 1)."""

    @property
    def log_weights(self) -> float:
        """Sum of the logarithms of the weights."""

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda', by all of vech(Ddot)."""

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> list[Array]:
        """Predictions of root u of each factor, (m_f, q_f)."""

    def random_effects_cov(self, Lambda: Array, root: Array) -> list[Array]:
        """Var(root u | y) / sigma2 of each factor, (m_f, q_f, q_f)."""


class ResidualEngine(Protocol):
    """An engine for residual structures; `at` fixes their parameters."""

    name: str

    def at(self, kappa: Array) -> Engine:
        """Return the engine at working parameters kappa (n_params,)."""


class WhiteningEngine(Engine, Protocol):
    """An engine at fixed parameters of a residual structure."""

    def whitened(self, Lambda: Array, c: Array) -> Array:
        """L^-1 A c (n,) with Vdot_i = L L', rows in the order of the clusters."""


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


class MomentsEngine:
    """Compressed clusters, Woodbury, lanes and threads: cost free of the number of rows.

    Parameters
    ----------
    share : bool
        Whether clusters of one design may be put together (docs/algorithm.md, eq. 2.16).
    """

    name = "moments"
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
