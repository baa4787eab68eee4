"""Crossed engine: any set of grouping factors, independent residuals with known weights.

Everything is done in the space of effects (docs/crossed.md): the levels of the largest factor and
of the factors that it is nested in are eliminated one by one, the rest as a dense or sparse block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array, vech_pairs
from lmmfast.engines.crossed_exact import all_of_T, expected_information
from lmmfast.engines.crossed_roots import MOST_EFFECTS, OrthogonalFactors, root_rows
from lmmfast.engines.engine import BaseEngine, Traits, Working
from lmmfast.engines.totals import Totals
from lmmfast.errors import TooLargeError
from lmmfast.grouping.levels import Levels
from lmmfast.limits import most_dense, most_sparse
from lmmfast.packing.compress import CHUNK_ROWS
from lmmfast.tolerances import DECREMENT_TOLERANCE

# With fewer levels a variance near zero may be far less sure than its standard error says.
FEW_LEVELS = 100
# The least D of factors in the dense block, relative to what the data know of an effect.
FLOOR = 3e-8
# From this D on, relative to that too, few effects are found from the rows: see crossed_roots.py.
STIFF = 1e4


class CrossedEngine(BaseEngine):
    """Totals of crossed grouping factors, at a cost that is free of the number of rows.

    Parameters
    ----------
    system : CrossedSystem
        Cross-products of effects, of the core.
    levels : Levels
    log_weights : float
        Sum of the logarithms of the weights.
    n_threads : int
    working : callable
        Gives rows again, in the working basis.
    """

    name = "crossed"
    n_designs = None
    #: Up to how many effects ``totals(…, with_kr=True)`` is exact.
    exact_limit = 2000

    def __init__(
        self, system: Any, levels: Levels, log_weights: float, n_threads: int, working: Working
    ) -> None:
        self.system, self.levels, self.n_threads = system, levels, n_threads
        self._root_rows = cache(lambda: root_rows(levels, working))
        self.log_weights = log_weights
        self.gram: Array = system.gram
        self.effects: list[NDArray[np.int64]] = system.effects()
        self._B: Array = system.B
        self._mean_G: list[Array] = system.mean_G
        self._has_dense: list[bool] = system.has_dense
        self._pairs = _pairs(levels.columns)
        self._keep: NDArray[np.intp] = np.arange(len(self.gram) - 1)
        self._n_obs, self._reml = levels.n, True

    @property
    def traits(self) -> Traits:
        """What a search may expect of it."""
        return Traits(
            average_information=True,
            n_effects=self.n_effects,
            decrement_tolerance=self._decrement_tolerance(),
            loses_digits=self.n_effects > MOST_EFFECTS,
            goes_back_to_rows=self.n_effects <= MOST_EFFECTS,
        )

    def _decrement_tolerance(self) -> float:
        """Newton decrement at which a search may end.

        Its root is the distance to the maximum in standard errors, which are sqrt(2 / m) of a
        variance of m levels or more: so this is for estimates to a millionth of themselves. Of few
        levels it is as small as elsewhere, since variances near zero are far less sure than that.
        """
        fewest = min(self.levels.counts)
        few = fewest < FEW_LEVELS
        return DECREMENT_TOLERANCE if few else float(min(2.5e-13 * fewest, 1e-10))

    @property
    def n_effects(self) -> int:
        """Number of effects of all levels."""
        return int(self.system.n_effects)

    def for_problem(self, keep: NDArray[np.intp], n_obs: int, reml: bool) -> CrossedEngine:
        """Return the engine for one problem: what average information depends on.

        Parameters
        ----------
        keep : ndarray of int
            Columns of X in use.
        n_obs : int
        reml : bool
        """
        new = copy.copy(self)
        new._keep, new._n_obs, new._reml = np.asarray(keep), n_obs, reml
        return new

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'.

        ``info`` is the average information of the problem given to `for_problem`; with `with_kr`
        and up to ``exact_limit`` effects it is the expected information, and ``kr`` is there.
        """
        try:
            if (factors := self._orthogonal(Lambda)) is not None:
                return self._orthogonal_totals(factors, with_kr)
            return self._eliminated_totals(Lambda, with_kr)
        except np.linalg.LinAlgError:  # X'V^-1 X is singular
            return self._impossible(len(Lambda))

    def _eliminated_totals(self, Lambda: Array, with_kr: bool) -> Totals:
        """Totals as of `totals`, from cross-products."""
        D, floored = Lambda @ Lambda.T, self._floored(Lambda)
        elimination = self._eliminate(floored)
        if not elimination.positive:
            return self._impossible(len(Lambda))
        v, reduction = elimination.solve(self._B)
        gram, quad = self.gram - reduction, self._quad(v, self.effects)
        exact = with_kr and self.system.n_effects <= self.exact_limit

        def times_T(g: Array) -> Array:
            return np.asarray(elimination.solve(self.system.times_G(g))[0])

        if exact:
            info, kr = self._exact(Lambda, v)
        else:
            info, kr = self._average_information(self.effects, times_T, v, gram), None
        trace = self._trace(elimination.own_blocks())
        row, column = vech_pairs(len(Lambda))
        lifted = (floored @ floored.T - D)[row, column]
        # To first order in what the floor adds, whose square is below rounding.
        return Totals(
            logdet=elimination.logdet - float(trace @ lifted),
            gram=gram + np.tensordot(lifted, quad, 1),
            trace=trace,
            quad=quad,
            info=info,
            kr=kr,
            average=not exact,
        )

    def _orthogonal(self, Lambda: Array) -> OrthogonalFactors | None:
        """V^-1 from the rows, where D is too large for cross-products and effects are few."""
        if self.n_effects > MOST_EFFECTS or not np.isfinite(Lambda).all():
            return None
        parts = zip(self.levels.columns, self._mean_G, strict=True)
        roots = [(Lambda[np.ix_(columns, columns)], G) for columns, G in parts]
        if all(np.trace(root.T @ G @ root) < STIFF for root, G in roots):
            return None
        return self._root_rows().at(Lambda, self._keep)

    def _orthogonal_totals(self, factors: OrthogonalFactors, with_kr: bool) -> Totals:
        """Totals as of `totals`."""
        effects, gram, v = self._root_rows().effects, factors.gram, factors.v
        blocks = [factors.T[at[:, :, None], at[:, None, :]] for at in effects]
        kr = None
        if with_kr:
            info, kr = expected_information(factors.T, self.levels.columns, effects, v)
        else:
            info = self._average_information(effects, factors.T.__matmul__, v, gram)
        return Totals(
            logdet=factors.logdet,
            gram=gram,
            trace=self._trace(blocks),
            quad=self._quad(v, effects),
            info=info,
            kr=kr,
            average=not with_kr,
            shift=factors.shift,
        )

    def start(self, keep: NDArray[np.intp]) -> Array:
        """Estimate Ddot (q, q), positive definite, from moments of residuals by level.

        Quadratic forms of shrunken level means of OLS residuals are set equal to what is expected
        of them (docs/crossed.md).

        Parameters
        ----------
        keep : ndarray of int
            Columns of X in use.
        """
        from lmmfast.engines.crossed_start import moment_start

        c = np.zeros(len(self.gram))
        c[-1] = 1.0
        c[keep] = -np.linalg.lstsq(self.gram[np.ix_(keep, keep)], self.gram[keep, -1])[0]
        return moment_start(
            self.system,
            self.levels.columns,
            self.levels.counts,
            c,
            float(c @ self.gram @ c),
            self.levels.n - len(keep),
        )

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> list[Array]:
        """Predictions root u of each factor, (m_f, q_f), where b = Lambda u, for c = (-beta, 1)."""
        found = []
        if (factors := self._orthogonal(Lambda)) is not None:
            u = factors.scaled_effects(c)
            parts = zip(self.levels.columns, self._root_rows().effects, strict=True)
            return [u[at] @ root[np.ix_(columns, columns)].T for columns, at in parts]
        v, _ = self._eliminate(self._floored(Lambda)).solve((self._B @ c)[:, None])
        for columns, at in zip(self.levels.columns, self.effects, strict=True):
            own = np.ix_(columns, columns)
            found.append(v[at, 0] @ (root[own] @ Lambda[own].T).T)
        return found

    def random_effects_cov(self, Lambda: Array, root: Array) -> list[Array]:
        """Var(root u | y) / sigma2 of each level of each factor, (m_f, q_f, q_f)."""
        found = []
        if (factors := self._orthogonal(Lambda)) is not None:
            for columns, at in zip(self.levels.columns, self._root_rows().effects, strict=True):
                half = root[np.ix_(columns, columns)] @ factors.scaled_root[at]
                found.append(half @ half.transpose(0, 2, 1))
            return found
        blocks = self._eliminate(self._floored(Lambda)).own_blocks()
        for columns, T in zip(self.levels.columns, blocks, strict=True):
            own = np.ix_(columns, columns)
            inner = np.eye(len(columns)) - Lambda[own].T @ T @ Lambda[own]
            found.append(root[own] @ inner @ root[own].T)
        return found

    def _eliminate(self, Lambda: Array) -> Any:
        roots = [np.ascontiguousarray(Lambda[np.ix_(c, c)]) for c in self.levels.columns]
        return self.system.eliminate(roots, self.n_threads)

    def _floored(self, Lambda: Array) -> Array:
        """Lambda, invertible for the factors with levels in the dense block."""
        out = Lambda
        parts = zip(self.levels.columns, self._has_dense, self._mean_G, strict=True)
        for columns, dense, G in parts:
            own = np.ix_(columns, columns)
            if dense and not np.all(np.isfinite(Lambda[own])):
                continue
            if dense and (root := _lifted(Lambda[own], G)) is not None:
                out = out.copy() if out is Lambda else out
                out[own] = root
        return out

    def _impossible(self, q: int) -> Totals:
        K, p1 = q * (q + 1) // 2, len(self.gram)
        empty = np.zeros((K, p1, p1))
        return Totals(np.inf, empty[0] * np.nan, np.zeros(K), empty, np.zeros((K, K)))

    def _trace(self, blocks: list[Array]) -> Array:
        q = sum(len(columns) for columns in self.levels.columns)
        trace = np.zeros(q * (q + 1) // 2)
        for pairs, T in zip(self._pairs, blocks, strict=True):
            total = T.sum(axis=0)
            for k, a, b in pairs:
                trace[k] = total[a, b] if a == b else total[a, b] + total[b, a]
        return trace

    def _quad(self, v: Array, effects: list[NDArray[np.int64]]) -> Array:
        q, p1 = sum(len(columns) for columns in self.levels.columns), len(self.gram)
        quad = np.zeros((q * (q + 1) // 2, p1, p1))
        for pairs, at in zip(self._pairs, effects, strict=True):
            own = v[at].reshape(len(at), -1)
            products = core.cross_product(own, own).reshape(at.shape[1], p1, at.shape[1], p1)
            for k, a, b in pairs:
                one = products[a, :, b]
                quad[k] = 0.5 * (one + one.T) if a == b else one + one.T
        return quad

    def _average_information(
        self,
        effects: list[NDArray[np.int64]],
        times_T: Callable[[Array], Array],
        v: Array,
        gram: Array,
    ) -> Array:
        """r'V^-1 dV_k P dV_l V^-1 r / (2 s2) by products with T = Z'V^-1 Z, (K, K)."""
        q = sum(len(columns) for columns in self.levels.columns)
        info = np.zeros((q * (q + 1) // 2,) * 2)
        keep = self._keep
        S = gram[np.ix_(keep, keep)]
        c = np.zeros(len(gram))
        c[-1] = 1.0
        c[keep] = -np.linalg.solve(S, gram[keep, -1])
        s2 = (c @ gram @ c) / (self._n_obs - (len(keep) if self._reml else 0))
        r, which = v @ c, list[int]()
        g = np.zeros((len(v), sum(len(pairs) for pairs in self._pairs)))
        for pairs, at in zip(self._pairs, effects, strict=True):
            for k, a, b in pairs:
                one = g[:, len(which)]
                one[at[:, a]] += r[at[:, b]]
                if a != b:
                    one[at[:, b]] += r[at[:, a]]
                which.append(k)
        inner = core.cross_product(g, np.ascontiguousarray(times_T(g)))
        if self._reml and len(keep):
            Xg = core.cross_product(np.ascontiguousarray(v[:, keep]), g)
            inner -= Xg.T @ np.linalg.solve(S, Xg)
        info[np.ix_(which, which)] = 0.25 * (inner + inner.T) / s2
        return info

    def _exact(self, Lambda: Array, v: Array) -> tuple[Array, Array]:
        T = all_of_T(self.system, self.levels.columns, self.effects, Lambda)
        return expected_information(T, self.levels.columns, self.effects, v)


def _pairs(columns: tuple[NDArray[np.intp], ...]) -> list[list[tuple[int, int, int]]]:
    """For each factor, its entries k of vech(Ddot) and their columns within the factor."""
    row, column = vech_pairs(sum(len(own) for own in columns))
    found = []
    for own in columns:
        place = {int(c): k for k, c in enumerate(own)}
        pairs = enumerate(zip(row.tolist(), column.tolist(), strict=True))
        found.append([(k, place[a], place[b]) for k, (a, b) in pairs if a in place and b in place])
    return found


def _lifted(Lambda: Array, G: Array) -> Array | None:
    """A root of D whose eigenvalues relative to G^-1 are at least FLOOR; None: they are already."""
    scale = np.linalg.cholesky(G + 1e-12 * (np.trace(G) or 1.0) * np.eye(len(G)))
    values, vectors = np.linalg.eigh(scale.T @ (Lambda @ Lambda.T) @ scale)
    if values[0] >= FLOOR:
        return None
    root = np.linalg.solve(scale.T, vectors)
    return np.asarray(root * np.sqrt(np.maximum(values, FLOOR)))


def _leading(levels: Levels) -> list[int]:
    """Factors whose levels go first: that of most effects, and a chain of those it is nested in."""
    effects = [m * len(c) for m, c in zip(levels.counts, levels.columns, strict=True)]
    chain = [int(np.argmax(effects))]
    by_size = sorted(range(len(effects)), key=lambda f: (-levels.counts[f], f))
    for f in by_size:
        if f not in chain and (chain[-1], f) in levels.parents:
            chain.append(f)
    return chain


def build_crossed(
    levels: Levels,
    working: Working,
    n_threads: int,
    *,
    dense_any: int = 600,
    dense_most: int = 16_000,
    dense_share: float = 0.1,
    most_entries: int = 250_000_000,
) -> CrossedEngine:
    """Sum up the rows, chunk by chunk.

    Parameters
    ----------
    levels : Levels
    working : callable
        Gives A (k, p + 1), Z (k, q) and weights (k,) or None of some rows, in the working basis.
    n_threads : int
    dense_any, dense_most : int
        The effects that are not eliminated first are one dense block up to `dense_any`, and up to
        `dense_most` where what is left of it is filled by `dense_share`; else they are ordered by
        minimum degree, and only the last, filled part is dense.
    dense_share : float
    most_entries : int
        Sparse columns with more entries are refused: some 24 bytes each.

    Raises
    ------
    TooLargeError
        Factors that cross too irregularly for their number of levels.
    """
    A, Z, weights = working(slice(0, min(CHUNK_ROWS, levels.n)))
    try:
        system = core.CrossedSystem(
            list(levels.codes),
            list(levels.counts),
            [columns.tolist() for columns in levels.columns],
            _leading(levels),
            A.shape[1],
            dense_any,
            most_dense(dense_most),
            dense_share,
            most_sparse(most_entries),
            n_threads,
        )
    except MemoryError:
        raise TooLargeError(
            f"{', '.join(map(repr, levels.names))} cross so irregularly that the Cholesky factor "
            f"of their {sum(levels.counts):,} levels does not fit into memory: leave a factor out, "
            "or take it as a fixed effect of fewer categories"
        ) from None
    log_weights = 0.0
    for begin in range(0, levels.n, CHUNK_ROWS):
        if begin:
            A, Z, weights = working(slice(begin, min(begin + CHUNK_ROWS, levels.n)))
        system.add_rows(A, Z, weights, begin, n_threads)
        if weights is not None:
            log_weights += float(np.log(weights).sum())
    system.finish()
    return CrossedEngine(system, levels, log_weights, n_threads, working)
