"""Engines: anything that turns a relative root of D into totals, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.engines.totals import Totals


@dataclass(frozen=True)
class Traits:
    """What a search may expect of an engine.

    Attributes
    ----------
    average_information : bool
        Its ``info`` is the average information, which depends on the response and on the problem,
        unless ``kr`` is asked for and affordable.
    n_effects : int or None
        Number of crossed effects; None: clusters are independent.
    decrement_tolerance : float or None
        Newton decrement at which a search may end; None: that of the search.
    loses_digits : bool
        Sums of squares come from cross-products even where next to nothing of them is left, and the
        certificate is to say what rounding leaves of the log-likelihood.
    goes_back_to_rows : bool
        Where cross-products leave next to nothing it takes sums of squares of the rows themselves.
    """

    average_information: bool = False
    n_effects: int | None = None
    decrement_tolerance: float | None = None
    loses_digits: bool = False
    goes_back_to_rows: bool = False


class BaseEngine:
    """What an engine says of itself where it has nothing special to say."""

    name: str
    n_designs: Any = None

    @property
    def traits(self) -> Traits:
        """What a search may expect of it."""
        return Traits()

    def for_problem(self, keep: NDArray[np.intp], n_obs: int, reml: bool) -> Any:
        """Return the engine for one problem, where ``info`` depends on it.

        Parameters
        ----------
        keep : ndarray of int
            Columns of X in use.
        n_obs : int
        reml : bool
        """
        return self

    def start(self, keep: NDArray[np.intp]) -> Array | None:
        """D relative to sigma2 (q, q) to start from; None: the identity matrix."""
        return None


class Engine(Protocol):
    """One way to factorise V."""

    name: str

    @property
    def n_designs(self) -> int | None:
        """Number of designs that clusters were put together by; None: they were not."""

    @property
    def traits(self) -> Traits:
        """What a search may expect of it."""

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
    def traits(self) -> Traits:
        """What a search may expect of it."""

    def for_problem(self, keep: NDArray[np.intp], n_obs: int, reml: bool) -> LevelsEngine:
        """Return the engine for one problem: see `BaseEngine.for_problem`."""

    def start(self, keep: NDArray[np.intp]) -> Array | None:
        """D relative to sigma2 to start from: see `BaseEngine.start`."""

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

    @property
    def traits(self) -> Traits:
        """What a search may expect of it."""

    def at(self, kappa: Array) -> Engine:
        """Return the engine at working parameters kappa (n_params,)."""


class WhiteningEngine(Engine, Protocol):
    """An engine at fixed parameters of a residual structure."""

    def whitened(self, Lambda: Array, c: Array) -> Array:
        """L^-1 A c (n,) with Vdot_i = L L', rows in the order of the clusters."""
