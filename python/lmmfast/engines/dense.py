"""The engine for all residual structures: V_i is formed, once for each pattern of clusters."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.engines.engine import Traits
from lmmfast.engines.markov import suits_markov
from lmmfast.engines.patterns import Bucket, BucketMaker, from_lanes, in_lanes
from lmmfast.engines.residual_base import ResidualEngineBase
from lmmfast.engines.totals import Totals, add_local
from lmmfast.limits import DenseSizes, Forecast, check_dense
from lmmfast.residual.dense import evaluate_custom
from lmmfast.residual.layout import Stratum
from lmmfast.residual.model import ResidualModel

#: What the kernels are given of the model, after the rows: roots of weights, G, kappa, correlation,
#: nugget fraction.
DenseArguments = tuple[Array | None, Array | None, Array, tuple[Any, ...] | None, float | None]


class DenseEngine(ResidualEngineBase):
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
        self._forecast = self._check_size()
        self.buckets = list(self.maker.buckets(A, compressed=True))
        shared = self.maker.n_patterns < model.m
        self.n_designs = self.maker.n_patterns if shared else None

    @property
    def traits(self) -> Traits:
        """What a search may expect of it."""
        return Traits(contracts=True, forecast=self._forecast)

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

    def _by_stratum(self) -> Iterator[tuple[Stratum, list[tuple[Any, ...]]]]:
        """Strata that have rows, with what sums need of the buckets of each."""
        for k, stratum in enumerate(self.model.parameters.strata):
            own = [bucket for bucket in self.buckets if bucket.stratum == k]
            if own:
                table = self._table(stratum)
                yield stratum, [self._of_bucket(bucket, table) for bucket in own]

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'."""
        totals = self._zero(with_kr)
        Lambda = np.ascontiguousarray(Lambda)
        for stratum, buckets in self._by_stratum():
            flat, failed = core.dense_totals_of_buckets(
                buckets, self._variance_kappa(), self._nu(stratum), Lambda, with_kr, self.n_threads
            )
            if failed >= 0:
                return self._failed()
            add_local(totals, flat, self._local(stratum))
        return totals

    def contracted(self, Lambda: Array, W: Sequence[Array]) -> Array:
        """Traces of W'kr_kl W for each W (p + 1, n_W), (len(W), K, K)."""
        K = self._K_D + self.model.parameters.n_params
        out = np.zeros((len(W), K, K))
        Lambda = np.ascontiguousarray(Lambda)
        for stratum, buckets in self._by_stratum():
            flat, failed = core.dense_contracted(
                buckets, self._variance_kappa(), self._nu(stratum), Lambda, W, self.n_threads
            )
            if failed >= 0:
                return np.full_like(out, np.nan)
            places = self._local(stratum)
            own = np.ix_(range(len(W)), places, places)
            out[own] += flat.reshape(len(W), len(places), len(places))
        return out

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
