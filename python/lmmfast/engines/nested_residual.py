"""Nested factors whose residuals have a structure within the innermost units.

The dense or Markov engine gives the totals of the innermost units inside each unit around them;
the nested sweep absorbs the outer levels. See docs/nested.md, section 5.
"""

from __future__ import annotations

import copy
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.engines.dense import DenseEngine
from lmmfast.engines.engine import BaseEngine, Working
from lmmfast.engines.markov import MarkovEngine, suits_markov
from lmmfast.engines.patterns import in_lanes
from lmmfast.engines.totals import Totals, add_local
from lmmfast.grouping.levels import Codes, Levels
from lmmfast.grouping.unit_order import UnitOrder, order_units
from lmmfast.packing.compress import aligned_zeros
from lmmfast.residual.model import ResidualModel


class NestedRows(NamedTuple):
    """Rows in the order of the tree of units and, within innermost ones, of the model.

    Attributes
    ----------
    order : UnitOrder
        The tree; its `ptr` counts these rows.
    A : ndarray (n, P)
        [Z_{L-1} … Z_1 X r] of the factors around the innermost one, the nearest first, each taken
        about the columns before it.
    p1 : int
        How many columns [X r] has.
    centre : list of ndarray (m_l, q_l, P_l)
        By outer level, the coefficients by which that was done.
    """

    order: UnitOrder
    A: Array
    p1: int
    centre: list[Array]


class NestedResidualEngine(BaseEngine):
    """Factors in a chain, residuals with a structure within the innermost units.

    Parameters
    ----------
    rows : NestedRows
    levels : Levels
    inner : DenseEngine or MarkovEngine
        Of the innermost units, with ``rows.A`` for A.
    n_threads : int

    Attributes
    ----------
    gram : ndarray (p + 1, p + 1)
        A'W A.
    log_weights : float
        Sum of log w.
    """

    name = "nested"
    n_designs = None

    def __init__(
        self,
        rows: NestedRows,
        levels: Levels,
        inner: DenseEngine | MarkovEngine,
        gram: Array,
        n_threads: int,
    ) -> None:
        self.rows, self.levels, self.inner = rows, levels, inner
        self.gram, self.n_threads = gram, n_threads
        self.log_weights = inner.log_weights
        self._columns = [levels.columns[f] for f in rows.order.chain]
        self._q = sum(map(len, self._columns))

    def at(self, kappa: Array) -> NestedResidualEngine:
        """Return the same engine at other parameters of the residual structure."""
        new = copy.copy(self)
        new.inner = self.inner.at(kappa)
        return new

    @cached_property
    def _tree(self) -> Any:
        """The tree as the kernels take it, without innermost units of its own."""
        P, q = self.rows.A.shape[1], len(self._columns[-1])
        m = len(self.rows.order.first[-1]) - 1
        first_block = np.append(np.zeros(m, dtype=np.int64), 1)  # one block, and nothing in it
        return core.NestedTree(
            [[int(c) for c in columns] for columns in self._columns],
            self.rows.p1,
            self.rows.order.first,
            first_block,
            self.rows.centre,
            np.zeros((m, P * (P + 1) // 2)),
            aligned_zeros((1, q * (q + 1) // 2 + q * P, core.lanes)),
        )

    def _own(self, level: int, matrix: Array) -> Array:
        columns = self._columns[level]
        return np.ascontiguousarray(matrix[np.ix_(columns, columns)])

    def _absorbed(self, Lambda: Array, with_kr: bool) -> tuple[Array, list[Array]] | None:
        """Totals, and what random effects need of the outer levels; None if V is not definite."""
        units = unit_totals(self.inner, self._unit, self._own(-1, Lambda))
        if units is None:
            return None
        K_R = self.inner.model.parameters.n_params
        flat, records = self._tree.absorb(
            units, K_R, np.ascontiguousarray(Lambda), with_kr, self.n_threads
        )
        flat[0] += self.log_weights
        return flat, records

    @cached_property
    def _unit(self) -> Codes:
        """Unit of the lowest outer level (m,) around each innermost one."""
        first = self.rows.order.first[-1]
        return np.repeat(np.arange(len(first) - 1), np.diff(first))

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda', by the full vech(Ddot) and then kappa."""
        K, p1 = self._q * (self._q + 1) // 2 + self.inner.model.parameters.n_params, self.rows.p1
        totals = Totals(
            0.0,
            np.zeros((p1, p1)),
            np.zeros(K),
            np.zeros((K, p1, p1)),
            np.zeros((K, K)),
            np.zeros((K, K, p1, p1)) if with_kr else None,
        )
        found = self._absorbed(Lambda, with_kr)
        if found is None:
            nowhere = totals.gram * np.nan
            return Totals(np.inf, nowhere, totals.trace, totals.quad, totals.info)
        add_local(totals, found[0], [*range(K)])
        return totals

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> list[Array]:
        """Predictions root u of each factor, (m_f, q_f), for c = (-beta, 1)."""
        order, found = self.rows.order, []
        inside = np.broadcast_to(c, (len(order.units[0]), len(c)))
        for level, unit in enumerate(self._units(Lambda)):
            take = self._own(level, root) @ self._own(level, Lambda).T
            found.append(np.einsum("ab,mbj,mj->ma", take, unit.W_ZA, inside))
            inside = np.concatenate([np.einsum("maj,mj->ma", unit.T1, inside), inside], axis=1)
            inside = np.repeat(inside, np.diff(order.first[level]), axis=0)
        r = np.einsum("nj,nj->n", self.rows.A, np.repeat(inside, np.diff(order.ptr), axis=0))
        found.append(self._innermost(Lambda, root, r))
        return order.by_factor(self.levels, found)

    def random_effects_cov(self, Lambda: Array, root: Array) -> list[Array]:
        """Var(root u | y) / sigma2 of each level of each factor, (m_f, q_f, q_f)."""
        order, found = self.rows.order, []
        # Covariance of the effects around, in the columns that the units inside see.
        Sigma = np.zeros((len(order.units[0]), 0, 0))
        for level, unit in enumerate(self._units(Lambda)):
            o = Sigma.shape[1]
            own, Lambda_own = self._own(level, root), self._own(level, Lambda)
            given = unit.B_inv_root @ own.T
            passed = own @ Lambda_own.T @ unit.W_ZA[:, :, :o]
            found.append(
                given.transpose(0, 2, 1) @ given + passed @ Sigma @ passed.transpose(0, 2, 1)
            )
            T1 = unit.T1[:, :, :o]
            across = T1 @ Sigma
            corner = across @ T1.transpose(0, 2, 1) + unit.K
            upper = np.concatenate([corner, across], axis=2)
            lower = np.concatenate([across.transpose(0, 2, 1), Sigma], axis=2)
            Sigma = np.concatenate([upper, lower], axis=1)
            Sigma = np.repeat(Sigma, np.diff(order.first[level]), axis=0)
        columns = self.rows.A[:, : Sigma.shape[1]].T
        passed = np.stack([self._innermost(Lambda, root, z) for z in columns], axis=2)
        inner = self.inner.random_effects_cov(self._own(-1, Lambda), self._own(-1, root))
        found.append(inner + passed @ Sigma @ passed.transpose(0, 2, 1))
        return order.by_factor(self.levels, found)

    def _innermost(self, Lambda: Array, root: Array, r: Array) -> Array:
        """Effects root Lambda'Z'V^-1 r of the innermost units, given what is around them."""
        engine: Any = copy.copy(self.inner)
        engine.__dict__.pop("_parts", None)
        engine.A = np.ascontiguousarray(r[:, None])
        own = self._own(-1, Lambda), self._own(-1, root)
        return np.asarray(engine.random_effects(*own, np.ones(1)))

    def _units(self, Lambda: Array) -> list[AbsorbedUnits]:
        """What random effects need of the outer levels."""
        found = self._absorbed(Lambda, False)
        if found is None:
            raise ValueError("V is not positive definite")
        out = []
        for record, centre in zip(found[1], self.rows.centre, strict=True):
            m, q, P = centre.shape
            ends = np.cumsum([q * P, q * P, q * q])
            T1, W_ZA, K, B_inv_root = np.split(record.reshape(m, -1), ends, axis=1)
            square = (m, q, q)
            out.append(
                AbsorbedUnits(
                    T1.reshape(m, q, P),
                    W_ZA.reshape(m, q, P),
                    K.reshape(square),
                    B_inv_root.reshape(square),
                )
            )
        return out


class AbsorbedUnits(NamedTuple):
    """Matrices of the units of a level, as in cpp/include/lmmfast/engines/nested/absorb.hpp."""

    T1: Array
    W_ZA: Array
    K: Array
    B_inv_root: Array


def unit_totals(engine: DenseEngine | MarkovEngine, unit: Codes, Lambda: Array) -> Array | None:
    """Totals (n_units, size), kr among them, of the clusters of an engine in each unit.

    Parameters
    ----------
    unit : ndarray (m,)
        Unit of each cluster, 0 … n_units - 1, not decreasing.

    Returns
    -------
    ndarray or None
        Totals in the order of cpp/include/lmmfast/engines/totals.hpp; None where V is not positive
        definite.
    """
    P, n_units = engine.A.shape[1], int(unit[-1]) + 1
    K = Lambda.shape[0] * (Lambda.shape[0] + 1) // 2 + engine.model.parameters.n_params
    out = np.zeros((n_units, _size(K, P)))
    for stratum, run in _passes(engine, unit, Lambda):
        places = engine._local(stratum)
        local = np.zeros((n_units, _size(len(places), P)))
        if run(local) >= 0:
            return None
        out[:, _entries(places, K, P)] += local
    return out


def _passes(engine: DenseEngine | MarkovEngine, unit: Codes, Lambda: Array) -> Any:
    """Pairs of a stratum and a kernel that adds its totals to an array, as far as it has them."""
    threads = engine.n_threads
    if isinstance(engine, MarkovEngine):
        for stratum, clusters, (_, A, data) in engine._parts:
            arguments = A, *data, *engine._arguments(stratum), Lambda, unit[clusters]
            yield stratum, partial(_spread, core.markov_unit_totals, arguments, threads)
        return
    for bucket in engine.buckets:
        units = in_lanes(unit[bucket.first], bucket.lanes)
        rows = (bucket.A, bucket.Z, bucket.counts)
        own = (*rows, *engine._arguments(bucket), Lambda, units)
        stratum = engine.model.parameters.strata[bucket.stratum]
        yield stratum, partial(_spread, core.dense_unit_totals, own, threads)


def _spread(kernel: Any, arguments: tuple[Any, ...], n_threads: int, out: Array) -> int:
    return int(kernel(*arguments, out, n_threads))


def _size(K: int, P: int) -> int:
    return 1 + K + K * K + P * P * (1 + K + K * K)


def _entries(places: list[int], K: int, P: int) -> Codes:
    """Where totals of the parameters at `places` stand among those of all K."""
    at, square = np.array(places), np.arange(P * P)
    pairs = (at[:, None] * K + at).ravel()
    gram = 1 + K + K * K
    parts = [
        np.zeros(1, dtype=np.int64),
        1 + at,
        1 + K + pairs,
        gram + square,
        (gram + P * P * (1 + at[:, None]) + square).ravel(),
        (gram + P * P * (1 + K + pairs[:, None]) + square).ravel(),
    ]
    return np.concatenate(parts)


def build_nested_residual(
    levels: Levels,
    working: Working,
    model: ResidualModel,
    n_threads: int,
    engine: str = "auto",
) -> NestedResidualEngine:
    """Prepare nested factors with a residual structure within the innermost units.

    Parameters
    ----------
    levels : Levels
        Two factors or more that form a chain.
    working : callable
        Rows -> A (k, p + 1), Z (k, q) and weights (k,) or None, in the working basis.
    model : ResidualModel
        Bound to clusters that are the levels of the innermost factor, in any order.
    n_threads : int
    engine : {'auto', 'dense', 'markov'}
        Engine of the innermost units.
    """
    order = order_units(levels, n_threads)
    cluster_of = np.empty(model.m, dtype=np.intp)
    cluster_of[levels.codes[order.chain[-1]][model.rows[model.ptr[:-1]]]] = np.arange(model.m)
    part, _ = model.part(cluster_of[order.units[-1]])
    order = UnitOrder(order.chain, order.units, order.first, part.ptr, part.rows)
    A, Z, weights = working(part.rows)
    gram = A.T @ (A if weights is None else A * weights[:, None])
    outer = [levels.columns[f] for f in order.chain[-2::-1]]
    rows = _centred(order, np.hstack([Z[:, np.concatenate(outer)], A]), list(map(len, outer)))
    Z_inner = np.ascontiguousarray(Z[:, levels.columns[order.chain[-1]]])
    if engine == "markov" or (engine == "auto" and suits_markov(part)):
        markov = MarkovEngine(rows.A, Z_inner, weights, part, n_threads)
        return NestedResidualEngine(rows, levels, markov, gram, n_threads)
    dense = DenseEngine(rows.A, Z_inner, weights, part, n_threads, share=False)
    return NestedResidualEngine(rows, levels, dense, gram, n_threads)


def _centred(order: UnitOrder, A: Array, sizes: list[int]) -> NestedRows:
    """Take columns about those of Z within each unit of the outer levels, the outermost first."""
    p1 = A.shape[1] - sum(sizes)
    starts, centre = [], []
    for level in range(len(order.first)):
        units = order.first[level][:-1]
        for first in order.first[level + 1 :]:
            units = first[units]
        starts.append(order.ptr[units])
    for level, start in enumerate(starts):
        q = sizes[-1 - level]
        at = sum(sizes[: len(sizes) - 1 - level])
        Z = A[:, at : at + q]
        products = np.add.reduceat(Z[:, :, None] * A[:, None, at:], start, axis=0)
        inverse = np.linalg.pinv(products[:, :, :q], rcond=1e-10, hermitian=True)
        C0 = np.ascontiguousarray(inverse @ products[:, :, q:])
        of_row = np.repeat(C0, np.diff(np.append(start, len(A))), axis=0)
        A[:, at + q :] -= np.einsum("na,naj->nj", Z, of_row)
        centre.append(C0)
    return NestedRows(order, np.ascontiguousarray(A), p1, centre)
