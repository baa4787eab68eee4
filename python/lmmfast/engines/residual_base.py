"""The compiled engines for residual structures: dense (V_i formed) and Markov (O(n_i))."""

from __future__ import annotations

import copy
import math
from functools import cached_property
from typing import Any

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.covariance.random import Ints
from lmmfast.engines.engine import Totals
from lmmfast.engines.patterns import Bucket, BucketMaker, from_lanes, in_lanes
from lmmfast.limits import DenseSizes, Forecast, check_dense
from lmmfast.residual.dense import evaluate_custom
from lmmfast.residual.layout import Stratum
from lmmfast.residual.model import ResidualModel

#: What the kernels are given of the model, after the rows: roots of weights, G, kappa, correlation,
#: nugget fraction; or kappa, name and parameter of the correlation, nugget fraction.
DenseArguments = tuple[Array | None, Array | None, Array, tuple[Any, ...] | None, float | None]
MarkovArguments = tuple[Array, str, float, float | None]
#: Rows of a stratum: Z, ptr, lags, roots of weights, G.
MarkovRows = tuple[Array, Ints, Array, Array | None, Array | None]

#: From this many rows in the longest cluster on the Markov engine is faster.
MARKOV_ROWS = 64


class _Engine:
    """What both engines share: the data, and the parameters that they stand at."""

    name: str
    n_designs: int | None = None
    #: What the dense engine expects a fit to take.
    forecast: Forecast | None = None

    def __init__(
        self, A: Array, Z: Array, weights: Array | None, model: ResidualModel, n_threads: int
    ) -> None:
        self.A, self.Z, self.model, self.n_threads = A, Z, model, n_threads
        self.inverse_root_weights = None if weights is None else 1.0 / np.sqrt(weights)
        # Totals leave out log|W^-1|.
        self.log_weights = 0.0 if weights is None else float(np.log(weights).sum())
        self.kappa = np.empty(0)

    def at(self, kappa: Array) -> Any:
        """Return the same engine at other parameters of the residual structure."""
        new = copy.copy(self)
        new.kappa = kappa
        return new

    @property
    def _K_D(self) -> int:
        q = self.Z.shape[1]
        return q * (q + 1) // 2

    def _local(self, stratum: Stratum) -> list[int]:
        """Places, among all parameters of the totals, of those that a stratum depends on."""
        own = [*range(stratum.psi.start, stratum.psi.stop)]
        own += [] if stratum.nu is None else [stratum.nu]
        shared = [*range(self._K_D + self.model.parameters.n_variance)]
        return [*shared, *(self._K_D + k for k in own)]

    def _zero(self, with_kr: bool) -> Totals:
        K, p1 = self._K_D + self.model.parameters.n_params, self.A.shape[1]
        return Totals(
            self.log_weights,
            np.zeros((p1, p1)),
            np.zeros(K),
            np.zeros((K, p1, p1)),
            np.zeros((K, K)),
            np.zeros((K, K, p1, p1)) if with_kr else None,
        )

    def _failed(self) -> Totals:
        """Totals where V is not positive definite: the likelihood is not finite there."""
        zero = self._zero(False)
        return Totals(np.inf, zero.gram * np.nan, zero.trace, zero.quad, zero.info)

    def _variance_kappa(self) -> Array:
        return np.ascontiguousarray(self.kappa[: self.model.parameters.n_variance])

    def _nu(self, stratum: Stratum) -> float | None:
        return None if stratum.nu is None else float(self.kappa[stratum.nu])


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


class DenseEngine(_Engine):
    """Form V_i and its Cholesky factor once for each pattern: O(n_i^3) a pattern.

    Parameters
    ----------
    A : ndarray (n, p + 1)
        [X y] in the working basis, rows in the order of the model.
    Z : ndarray (n, q)
    weights : ndarray (n,) or None
    model : ResidualModel
    n_threads : int
    share : bool
        Whether clusters of one pattern are looked for.
    """

    name = "dense"

    def __init__(
        self,
        A: Array,
        Z: Array,
        weights: Array | None,
        model: ResidualModel,
        n_threads: int,
        share: bool = True,
    ) -> None:
        super().__init__(A, Z, weights, model, n_threads)
        self.maker = BucketMaker(model, Z, self.inverse_root_weights, share)
        self.forecast = self._check_size()
        self.buckets = list(self.maker.buckets(A, compressed=True))
        shared = self.maker.n_patterns < model.m
        self.n_designs = self.maker.n_patterns if shared else None

    def _check_size(self) -> Forecast:
        """Forecast the work; refuse what memory or time do not allow to form and factorise."""
        model, p1, q = self.model, self.A.shape[1], self.Z.shape[1]
        parameters, groups = model.parameters, self.maker.groups
        patterns = [(g.n, len(g.counts), int(np.minimum(g.counts, g.n * p1).sum())) for g in groups]
        is_table = model.positions is not None
        n_psi = max(s.psi.stop - s.psi.start for s in parameters.strata)
        sizes = DenseSizes(
            patterns=patterns,
            n_params=self._K_D + parameters.n_params,
            n_local=max(len(self._local(s)) for s in parameters.strata) - self._K_D,
            p1=p1 + q,
            lanes=core.lanes,
            visits=parameters.T if is_table else 0,
            n_psi=n_psi if is_table else 0,
        )
        return check_dense(str(model.structure), sizes, self.n_threads, _way_out(model))

    def _table(self, stratum: Stratum) -> Any:
        """Correlations of all visits and their derivatives, once for the buckets of a stratum."""
        parameters = self.model.parameters
        correlation = parameters.correlation
        if correlation is None or self.model.positions is None:
            return None
        psi = np.ascontiguousarray(self.kappa[stratum.psi])
        return core.residual_table(correlation.kind, parameters.T, psi)

    def _correlation(self, bucket: Bucket, table: Any) -> Any:
        """What the kernels need to form C and its derivatives."""
        parameters = self.model.parameters
        correlation, stratum = parameters.correlation, parameters.strata[bucket.stratum]
        if correlation is None:
            return None
        psi = np.ascontiguousarray(self.kappa[stratum.psi])
        if correlation.custom is not None:
            assert bucket.coords is not None
            values = from_lanes(bucket.coords, len(bucket.first))
            pairs = [evaluate_custom(correlation.custom, psi, v) for v in values]
            C, dC = (np.array(part) for part in zip(*pairs, strict=True))
            return "given", in_lanes(C, bucket.lanes), in_lanes(dC, bucket.lanes)
        if bucket.positions is not None:
            return "table", bucket.positions, *table
        return "distance", correlation.kind, bucket.coords, float(psi[0])

    def _arguments(self, bucket: Bucket) -> DenseArguments:
        stratum = self.model.parameters.strata[bucket.stratum]
        return (
            bucket.inverse_root_weights,
            bucket.G,
            self._variance_kappa(),
            self._correlation(bucket, self._table(stratum)),
            self._nu(stratum),
        )

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'."""
        totals = self._zero(with_kr)
        Lambda = np.ascontiguousarray(Lambda)
        for k, stratum in enumerate(self.model.parameters.strata):
            table = self._table(stratum)
            buckets = [self._of_bucket(b, table) for b in self.buckets if b.stratum == k]
            if not buckets:
                continue
            flat, failed = core.dense_totals_of_buckets(
                buckets, self._variance_kappa(), self._nu(stratum), Lambda, with_kr, self.n_threads
            )
            if failed >= 0:
                return self._failed()
            add_local(totals, flat, self._local(stratum))
        return totals

    def thinned(self, step: int) -> tuple[DenseEngine, int]:
        """Every so many packs of patterns, for totals alone, and the number of their rows."""
        new, before = copy.copy(self), 0
        new.buckets = []
        for bucket in self.buckets:
            n_packs = len(bucket.counts)
            if (first := -before % step) < n_packs:
                new.buckets.append(bucket.packs(slice(first, None, step)))
            before += n_packs
        return new, sum(bucket.n_rows for bucket in new.buckets)

    def _of_bucket(self, bucket: Bucket, table: Any) -> tuple[Any, ...]:
        """What sums of several buckets need of each."""
        return (
            bucket.A,
            bucket.Z,
            bucket.counts,
            bucket.inverse_root_weights,
            bucket.G,
            self._correlation(bucket, table),
        )

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> Array:
        """Predictions root Lambda'Z'V^-1 r (m, q) for r = A c."""
        out = np.empty((self.model.m, self.Z.shape[1]))
        for bucket in self._residual_buckets(c):
            b = core.dense_effects(
                bucket.A,
                bucket.Z,
                *self._arguments(bucket),
                np.ascontiguousarray(Lambda),
                np.ascontiguousarray(root),
                np.ones(1),
                self.n_threads,
            )
            used = bucket.members >= 0
            out[bucket.members[used]] = from_lanes(b, len(bucket.first))[used]
        return out

    def random_effects_cov(self, Lambda: Array, root: Array) -> Array:
        """Var(root u | y) / sigma2 = root (I - Lambda'Z'V^-1 Z Lambda) root', (m, q, q)."""
        out = np.empty((self.model.m, self.Z.shape[1], self.Z.shape[1]))
        for bucket in self._residual_buckets(np.zeros(self.A.shape[1])):
            covariance = core.dense_effects_cov(
                bucket.Z,
                *self._arguments(bucket),
                np.ascontiguousarray(Lambda),
                np.ascontiguousarray(root),
                self.n_threads,
            )
            pattern, _ = np.nonzero(bucket.members >= 0)
            used = bucket.members[bucket.members >= 0]
            out[used] = from_lanes(covariance, len(bucket.first))[pattern]
        return out

    def whitened(self, Lambda: Array, c: Array) -> Array:
        """L^-1 A c (n,) with Vdot_i = L L', rows in the order of the model."""
        out = np.empty(len(self.A))
        for bucket in self._residual_buckets(c):
            white = core.dense_whitened(
                bucket.A,
                bucket.Z,
                *self._arguments(bucket),
                np.ascontiguousarray(Lambda),
                np.ones(1),
                self.n_threads,
            )
            used = bucket.members >= 0
            rows = self.model.ptr[bucket.members[used]][:, None] + np.arange(bucket.n)
            out[rows] = from_lanes(white, len(bucket.first))[used]
        return out

    def _residual_buckets(self, c: Array) -> Any:
        return self.maker.buckets((self.A @ c)[:, None], compressed=False)


class MarkovEngine(_Engine):
    """Whiten AR(1) and Ornstein-Uhlenbeck residuals by recursion: O(n_i) a cluster.

    Parameters
    ----------
    A, Z, weights, model, n_threads
        As in `DenseEngine`; rows of a cluster sorted by time.
    """

    name = "markov"

    @cached_property
    def _parts(self) -> list[tuple[Stratum, Ints, tuple[Any, Array, MarkovRows]]]:
        """For each stratum its clusters, and its rows: which, A, and what kernels want beside."""
        model = self.model
        coords, sizes = model.coords, np.diff(model.ptr)
        assert coords is not None
        lag = np.zeros(len(coords))
        lag[1:] = np.diff(coords[:, 0])
        lag[model.ptr[:-1]] = 0.0
        parts = []
        for k, stratum in enumerate(model.parameters.strata):
            clusters = np.flatnonzero(model.stratum == k)
            rows: Any = slice(None)
            if len(model.parameters.strata) > 1:
                rows = np.flatnonzero(np.repeat(model.stratum == k, sizes))
            ptr = np.append(0, np.cumsum(sizes[clusters])).astype(np.int64)

            def take(values: Array, rows: Any = rows) -> Array:
                return np.ascontiguousarray(values[rows])

            def take_any(values: Array | None, take: Any = take) -> Array | None:
                return None if values is None else take(values)

            data = (
                take(self.Z),
                ptr,
                take(lag),
                take_any(self.inverse_root_weights),
                take_any(model.G),
            )
            parts.append((stratum, clusters, (rows, take(self.A), data)))
        return parts

    def _arguments(self, stratum: Stratum) -> MarkovArguments:
        correlation = self.model.parameters.correlation
        assert correlation is not None
        psi = float(self.kappa[stratum.psi][0])
        return self._variance_kappa(), correlation.kind, psi, self._nu(stratum)

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'."""
        totals = self._zero(with_kr)
        Lambda = np.ascontiguousarray(Lambda)
        for stratum, _, (_, A, data) in self._parts:
            flat, failed = core.markov_totals(
                A, *data, *self._arguments(stratum), Lambda, with_kr, self.n_threads
            )
            if failed >= 0:
                return self._failed()
            add_local(totals, flat, self._local(stratum))
        return totals

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> Array:
        """Predictions root Lambda'Z'V^-1 r (m, q) for r = A c."""
        out = np.empty((self.model.m, self.Z.shape[1]))
        Lambda, root = np.ascontiguousarray(Lambda), np.ascontiguousarray(root)
        for stratum, clusters, (_, A, data) in self._parts:
            out[clusters] = core.markov_effects(
                A, *data, *self._arguments(stratum), Lambda, root, c, self.n_threads
            )
        return out

    def random_effects_cov(self, Lambda: Array, root: Array) -> Array:
        """Var(root u | y) / sigma2 = root (I - Lambda'Z'V^-1 Z Lambda) root', (m, q, q)."""
        q = self.Z.shape[1]
        out = np.empty((self.model.m, q, q))
        Lambda, root = np.ascontiguousarray(Lambda), np.ascontiguousarray(root)
        for stratum, clusters, (_, A, data) in self._parts:
            out[clusters] = core.markov_effects_cov(
                A, *data, *self._arguments(stratum), Lambda, root, self.n_threads
            )
        return out

    def whitened(self, Lambda: Array, c: Array) -> Array:
        """L^-1 A c (n,) with Vdot_i = L L', rows in the order of the model."""
        out = np.empty(len(self.A))
        Lambda = np.ascontiguousarray(Lambda)
        for stratum, _, (rows, A, data) in self._parts:
            out[rows] = core.markov_whitened(
                A, *data, *self._arguments(stratum), Lambda, c, self.n_threads
            )
        return out


def _way_out(model: ResidualModel) -> str:
    """What to do instead of a structure that is too large for this engine."""
    correlation = model.parameters.correlation
    if correlation is None:
        return "split the clusters into smaller ones"
    if model.positions is not None:
        return "AR1 or HeterogeneousAR1 has few parameters however many visits there are"
    if suits_markov(model) is not None:
        return "engine='markov' takes time in proportion to the rows"
    return (
        "split the clusters into smaller ones; in one dimension OU takes time in proportion "
        "to the rows"
    )


def suits_markov(model: ResidualModel) -> bool | None:
    """Whether the Markov engine is the faster one; None: it does not know the structure."""
    correlation = model.parameters.correlation
    if correlation is None or correlation.kind not in ("ar1", "exponential"):
        return None
    if model.coords is None or model.coords.shape[1] > 1:
        return None
    return int(np.diff(model.ptr).max()) >= MARKOV_ROWS
