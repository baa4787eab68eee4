"""Many responses, one design: `fit_many`.

The design is compressed once; the responses go through the core in chunks, so that memory does not
grow with their number (cpp/include/lmmfast/fit/many_responses.hpp).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.batch.many_result import NO_FIT, ManyFits, name_endings
from lmmfast.batch.responses import Responses, open_responses
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.data.columns import as_array
from lmmfast.design.from_arrays import ArrayDesign
from lmmfast.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DataError,
    NotIdentifiableError,
    UnsupportedModelError,
)
from lmmfast.fitting.identify import check_clusters, residual_sums
from lmmfast.fitting.options import Options
from lmmfast.fitting.pipeline import fit_design, warn_of_empty_effects
from lmmfast.fitting.prepare import Prepared, prepare_design
from lmmfast.grouping.clusters import Clusters, gather
from lmmfast.literals import Identifiable, RankDeficient
from lmmfast.packing.basis import SAMPLE_ROWS, Basis
from lmmfast.packing.compress import aligned_zeros
from lmmfast.progress import Reporter
from lmmfast.search.optimum import compiled_terms, is_compiled, limit_reason

# Numbers of a chunk of responses: few enough for a cache, many enough to pay for the call.
CHUNK_NUMBERS = 1 << 19
MOST_AT_ONCE, FEWEST_AT_ONCE = 256, 8

CONSTANT, EXACT, NOT_FINITE = NO_FIT[:3]


def fit_many(
    Y: Any,
    X: Any,
    groups: Any,
    Z: Any = None,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    D: Any = None,
    x_names: Sequence[str] | None = None,
    z_names: Sequence[str] | None = None,
    y_names: Sequence[str] | None = None,
    group_name: str = "group",
    rank_deficient: RankDeficient = "drop",
    identifiable: Identifiable = "raise",
    n_jobs: int | None = None,
    max_iter: int = 200,
    progress: Callable[[dict[str, Any]], None] | bool = False,
) -> ManyFits:
    """Fit one linear mixed model to each of many responses that share their design.

    Each response has its own variances, its own search and its own certificate; what depends on
    the design alone is done once.

    Parameters
    ----------
    Y : array (n, r), table, or iterable of arrays (n, k)
        A response a column. An array may be memory-mapped; of an iterable, one block at a time is
        in memory.
    X, groups, Z, reml, weights, offset, D, x_names, z_names, group_name, rank_deficient,
    identifiable, n_jobs
        See `lmmfast.fit`; one grouping factor. Missing values in them are errors. Where variances
        cannot be told apart and ``identifiable="warn"``, responses are fitted one by one.
    y_names : sequence of str, optional
        Default: those of a table, or y0, y1, ….
    max_iter : int
        Most evaluations of the likelihood for each response.
    progress
        See `lmmfast.lmm`; the stage is "responses".

    Returns
    -------
    ManyFits
        Arrays with a row for each response. A response that cannot be fitted (missing values,
        constant) has NaN there and the reason in ``status``; the others are not affected.

    Raises
    ------
    DataError, NotIdentifiableError, UnsupportedModelError
        For the design, as `lmmfast.fit`.

    Examples
    --------
    >>> import numpy as np, lmmfast as lf
    >>> d = lf.datasets.sleepstudy()
    >>> X = np.column_stack([np.ones(len(d)), d["Days"]])
    >>> Y = np.column_stack([d["Reaction"], np.log(d["Reaction"])])
    >>> fits = lf.fit_many(Y, X, d["Subject"], Z=X)
    >>> fits.llf.round(4)
    array([-871.8141,  149.2406])
    """
    options = Options(
        reml,
        rank_deficient,
        n_jobs=n_jobs,
        max_iter=max_iter,
        identifiable=identifiable,
        reporter=Reporter(progress),
    )
    responses = open_responses(Y, y_names)
    design = ArrayDesign(
        np.zeros(responses.n_rows),
        X,
        groups,
        Z,
        weights=weights,
        offset=None,
        x_names=x_names,
        z_names=z_names,
        group_name=group_name,
        D=D,
    )
    if rank_deficient == "drop" and (empty := design.empty_effects()):
        design = design.without_effects(empty)
        warn_of_empty_effects(design, stacklevel=3)
    if len(design.factor_names) > 1:
        raise UnsupportedModelError(
            f"fit_many knows one grouping factor, and groups has {len(design.factor_names)}: fit "
            "the responses one by one, the first by lmmfast.fit and the others by its refit"
        )
    clusters = gather(design.keys, options.n_jobs)
    check_clusters(design, clusters)
    covariance, data = prepare_design(design, clusters, options)
    if not is_compiled(covariance):
        raise UnsupportedModelError(
            "fit_many knows no heterogeneous compound symmetry: choose another structure, or fit "
            "the responses one by one"
        )
    shared = share(design, clusters, covariance, data, options)
    known = None if offset is None else _read_offset(offset, design.n_obs)
    parts = shared.fit_all(responses, known)
    names = responses.names(sum(len(p.llf) for p in parts))
    result = ManyFits.join(parts, names, design, clusters.m, data.keep, covariance, reml)
    _report(result)
    return result


def _read_offset(offset: Any, n: int) -> Array:
    """Read known parts of the responses, (n,).

    Raises
    ------
    DataError
        Not as many finite numbers as there are rows.
    """
    known: Any = as_array("offset", offset)
    try:
        known = known.astype(np.float64) if known.dtype.kind in "fiubO" else None
    except (TypeError, ValueError):
        known = None
    if known is None:
        raise DataError("the offset must be numbers, one for each row of Y")
    if known.shape != (n,):
        raise DataError(f"the offset has shape {known.shape}, but Y has {n} rows")
    if not np.isfinite(known).all():
        row = int(np.flatnonzero(~np.isfinite(known))[0])
        raise DataError(f"the offset is missing or infinite in row {row} (counting from 0)")
    return np.asarray(known)


def _at_once(n: int) -> int:
    """How many responses go through the core in one chunk."""
    return int(np.clip(CHUNK_NUMBERS // max(n, 1) // 8 * 8, FEWEST_AT_ONCE, MOST_AT_ONCE))


class _Working(NamedTuple):
    """Responses in the working basis.

    Attributes
    ----------
    W, W_scale : ndarray (n, k), (k,)
        Working residuals are W / W_scale.
    shift, scale : ndarray (k,)
        Of the responses.
    B : ndarray (p, k)
        Working coefficients that the residuals are about.
    size : ndarray (k,)
        Largest absolute response in units of its scale.
    """

    W: Array
    W_scale: Array
    shift: Array
    scale: Array
    B: Array
    size: Array


@dataclass(frozen=True)
class SharedDesign:
    """What all responses share, in the working basis.

    Attributes
    ----------
    X : ndarray (n, p)
        Kept columns in the working basis.
    solve : ndarray (p, s)
        Least squares on a sample of the rows: coefficients from responses (s, k).
    sample : ndarray of int (s,)
    """

    design: ArrayDesign
    clusters: Clusters
    covariance: BlockCovariance
    data: Prepared
    options: Options
    X: Array
    weights: Array | None
    sample: NDArray[np.intp]
    solve: Array

    @property
    def basis(self) -> Basis:
        """The working basis."""
        return self.data.basis

    def fit_all(self, responses: Responses, offset: Array | None) -> list[ManyFits]:
        """Fit block after block; small ones that lie in memory side by side, on a thread each."""
        at_once, threads = _at_once(self.design.n_obs), n_threads(self.options.n_jobs)
        blocks = responses.blocks(at_once)
        small = self.design.n_obs * FEWEST_AT_ONCE <= CHUNK_NUMBERS
        if threads == 1 or not small or responses.n_in_memory < threads * at_once:
            return self._counted(self.fit(block, offset, threads) for block in blocks)
        with ThreadPoolExecutor(threads) as pool:
            return self._counted(pool.map(lambda block: self.fit(block, offset, 1), blocks))

    def _counted(self, parts: Iterable[ManyFits]) -> list[ManyFits]:
        found = []
        with self.options.reporter.stage("responses", "responses") as stage:
            for part in parts:
                found.append(part)
                stage.advance(len(part.llf))
        return found

    def fit(self, Y: Array, offset: Array | None, threads: int) -> ManyFits:
        """Fit a block of responses (n, k)."""
        Y = Y if offset is None else Y - offset[:, None]
        k = Y.shape[1]
        finite = np.isfinite(Y).all(axis=0)
        usable = Y if finite.all() else np.where(finite, Y, 0.0)
        working = self._working(usable)
        blocks, gram, perp, z_in_x = self._compress(working, threads)
        status = np.where(finite, "", NOT_FINITE).astype(object)
        self._check(gram, perp, working.size, status)
        df = self.design.n_obs - (self.X.shape[1] if self.options.reml else 0)
        constants = 0.5 * self.data.log_weights - df * np.log(working.scale)
        if self.options.reml:
            constants += self.basis.x_log_det(self.data.keep)
        found = core.fit_responses(
            blocks,
            self.covariance.q,
            gram.shape[0],
            self.clusters.m,
            self.X.shape[1],
            constants,
            perp,
            compiled_terms(self.covariance),
            self.design.n_obs,
            bool(self.options.reml),
            min(int(self.options.max_iter), 2**31 - 1),
            threads,
            z_in_x,
        )
        refused = self.options.identifiable == "raise"
        if refused and k and (found["status"] == 4).all():
            raise NotIdentifiableError(
                f"the data cannot tell the variances of {self.design.group_name!r} and of the "
                "residual apart, whatever the response; fit one response by lmmfast.fit to see "
                "which, or choose a simpler random-effects structure"
            )
        limit = limit_reason(int(self.options.max_iter))
        name_endings(found, status, self.covariance.sizes, limit)
        fits = self._user_scale(found, status, working)
        if not refused:
            self._one_by_one(usable, fits)
        return fits

    def _one_by_one(self, Y: Array, fits: ManyFits) -> None:
        """Fit those responses (n, k) of which the core cannot tell the variances apart."""
        for j in np.flatnonzero(fits.status == NO_FIT[3]):
            try:
                silent = replace(self.options, reporter=Reporter(log=False))
                fit = fit_design(self.design.with_response(Y[:, j]), silent)
            except (NotIdentifiableError, ConvergenceError):
                continue
            found = fit._estimates
            fits.beta[j], fits.bse[j] = found.beta, np.sqrt(np.diag(found.cov_beta))
            fits.D[j], fits.sigma2[j], fits.llf[j] = found.D, found.sigma2, found.loglik
            fits.decrement[j] = fit.certificate.decrement
            fits.evaluations[j] = fit.certificate.evaluations
            fits.status[j], fits.n_flat = fit.certificate.status, fit._n_flat

    def _working(self, Y: Array) -> _Working:
        """Bring responses into the working basis, as `choose_basis` does for one."""
        everything = len(self.sample) == len(Y)
        rows = Y if everything else Y[self.sample]
        X = self.X if everything else self.X[self.sample]
        largest = np.maximum(rows.max(axis=0), -rows.min(axis=0))
        unit = _powers_of_two(largest)
        rows = rows / unit
        shift = rows.mean(axis=0) if self.basis.unit is not None else np.zeros(rows.shape[1])
        rows -= shift
        B = self.solve @ rows
        rows -= X @ B
        scale = _powers_of_two(np.sqrt(np.einsum("ij,ij->j", rows, rows) / len(rows)))
        shift, size = shift * unit, largest / (scale * unit)
        W = rows if everything else (Y - shift) / unit - self.X @ B
        return _Working(W, scale, shift, scale * unit, B / scale, size)

    def _compress(self, working: _Working, threads: int) -> tuple[Array, Array, Array, list[int]]:
        """R, Q'X and Q'w of every cluster; the products of [X w] whole and beyond Z; `z_in_x`."""
        basis, clusters, W = self.basis, self.clusters, working.W
        k = W.shape[1]
        p, q = self.X.shape[1], self.covariance.q
        columns = [*self.X.T, *W.T]
        n_fields = q * (q + 1) // 2 + q * (p + k + 1)
        blocks = aligned_zeros((-(-clusters.m // core.lanes), n_fields, core.lanes))
        gram, perp, *_, z_in_x = core.compress_rows(
            columns,
            self.design.batch(slice(None)).Z,
            np.broadcast_to(0.0, (len(W),)),
            self.weights,
            None,
            clusters.ptr,
            clusters.order,
            np.zeros(p + k),
            np.concatenate([np.ones(p), 1.0 / working.W_scale]),
            basis.z_shift,
            1.0 / basis.z_scale,
            None,
            basis.z_mix,
            0.0,
            1.0,
            np.zeros(p + k),
            blocks,
            threads,
            k + 1,
        )
        return blocks, gram, perp, z_in_x if max(z_in_x, default=p) < p else []

    def _check(self, gram: Array, perp: Array, size: Array, status: NDArray[Any]) -> None:
        """Find responses that fixed effects, or fixed and random ones, fit exactly."""
        p, n = self.X.shape[1], self.design.n_obs
        total, _ = residual_sums(gram[:-1, :-1], gram[:-1, :-1], p)
        rest, rank = residual_sums(perp[:-1, :-1], gram[:-1, :-1], p)
        eps = np.finfo(float).eps
        constant = ~(np.sqrt(np.maximum(total, 0.0) / n) > 8 * eps * size)
        rows_left = n - self.data.rank_Z - rank
        rounding = 64 * eps * np.diag(perp)[p:-1]
        exact = (rows_left > 0) & (rest <= np.maximum(1e-24 * total, rounding))
        if rows_left == 0 and rank > 0 and not self.options.reml:
            exact[:] = True
        for reason, found in ((CONSTANT, constant), (EXACT, exact)):
            status[found & (status == "")] = reason

    def _user_scale(
        self, found: dict[str, Any], status: NDArray[Any], working: _Working
    ) -> ManyFits:
        """From the working basis to the units of the responses, as `estimates`."""
        basis, keep = self.basis, self.data.keep
        shift, scale, B = working.shift, working.scale, working.B
        loglik, sigma2, decrement, *_ = found["numbers"].T
        A, A_z = basis.x_map(keep), basis.z_map()
        with np.errstate(all="ignore"):
            beta = scale[:, None] * ((found["beta"] + B.T) @ A.T)
            if basis.unit is not None:
                beta += shift[:, None] * basis.unit[keep]
            variance_unit = scale * scale * sigma2
            root = A @ found["S_inv_root"]
            bse = np.sqrt(variance_unit[:, None] * (root**2).sum(axis=2))
            D = variance_unit[:, None, None] * (A_z @ found["D"] @ A_z.T)
            variances = variance_unit * basis.weight_scale
        nothing = np.array([text in NO_FIT for text in status], dtype=bool)
        # A result that left the range of double precision is none.
        far = ~np.isfinite(np.column_stack([beta, bse, D.reshape(len(D), -1), variances])).all(
            axis=1
        )
        status[far & ~nothing] = NO_FIT[-1]
        nothing |= far
        for values in (beta, bse, D, variances, loglik, decrement):
            values[nothing] = np.nan
        return ManyFits(
            beta=beta,
            bse=bse,
            D=D,
            sigma2=variances,
            llf=np.ascontiguousarray(loglik),
            status=status,
            decrement=np.ascontiguousarray(decrement),
            evaluations=found["evaluations"],
        )


def _powers_of_two(x: Array) -> Array:
    """Powers of two next to numbers (k,), 1 next to 0: scaling by them rounds nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.round(np.log2(x))
    return np.exp2(np.where(np.isfinite(exponent), np.clip(exponent, -1000, 1000), 0.0))


def share(
    design: ArrayDesign,
    clusters: Clusters,
    covariance: BlockCovariance,
    data: Prepared,
    options: Options,
) -> SharedDesign:
    """Bring the design into the working basis, once."""
    n = design.n_obs
    A, _, weights = data.basis.working(design.batch(slice(None)))
    X = np.asfortranarray(A[:, data.keep])
    sample = np.unique(np.linspace(0, n - 1, min(n, SAMPLE_ROWS)).astype(np.intp))
    solve = np.linalg.pinv(X[sample], rcond=1e-10)
    return SharedDesign(
        design, clusters, covariance, data, options, X, weights, sample, np.asarray(solve)
    )


def _report(result: ManyFits) -> None:
    """Warn once of all responses without a result, or with one that is not certain."""
    doubtful = np.flatnonzero(~result.converged)
    if len(doubtful):
        first = int(doubtful[0])
        warnings.warn(
            f"{len(doubtful)} of {len(result)} responses did not converge or could not be fitted, "
            f"the first {result.y_names[first]!r}: {result.status[first]}; see .status",
            ConvergenceWarning,
            stacklevel=3,
        )
