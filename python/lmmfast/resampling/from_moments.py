"""Replicates of a fit from moments: drawn and fitted in packed form, without rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.batch.many_result import NO_FIT, ManyFits, name_endings, natural_parameters
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.engines.moments import MomentsEngine
from lmmfast.packing.basis import Basis
from lmmfast.packing.compress import aligned_zeros
from lmmfast.resampling.law import MomentsLaw, moments_law
from lmmfast.resampling.seeds import generator
from lmmfast.search.objective import Problem
from lmmfast.search.optimum import compiled_terms, is_compiled, limit_reason
from lmmfast.search.scoring import floor_eigenvalues

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Numbers Q'y that are in memory at a time.
NUMBERS = 1 << 25
#: Most replicates in one call of the core.
MOST_AT_ONCE = 1024
#: Most evaluations of the likelihood for each replicate.
MAX_ITER = 200


@dataclass(frozen=True)
class MomentsModel:
    """A fit in its working basis, and the law of responses under it.

    Attributes
    ----------
    unit : float
        Residual variance on the user's scale, of rows of working weight one.
    start : ndarray (n_params,)
        Root parameters from which replicates are searched: those of the fit, inside the cone.
    """

    law: MomentsLaw
    problem: Problem
    covariance: BlockCovariance
    basis: Basis
    beta: Array
    unit: float
    start: Array
    n_threads: int

    @property
    def _constant(self) -> float:
        """Constant of the likelihood of a response in units of sigma."""
        sigma2 = self.unit / self.basis.y_scale**2
        return float(self.problem.constant - 0.5 * self.problem.df * np.log(sigma2))

    def replicates(self, entropy: int, numbers: Sequence[int]) -> ManyFits:
        """Fit the replicates of these numbers, without names."""
        law = self.law
        if law.design is None:
            return self._user_scale(self._one_by_one(entropy, numbers))
        at_once = int(np.clip(NUMBERS // max(law.m * law.q, 1), core.lanes, MOST_AT_ONCE))
        parts = [
            self._user_scale(self._side_by_side(entropy, numbers[first : first + at_once]))
            for first in range(0, len(numbers), at_once)
        ]
        return parts[0] if len(parts) == 1 else ManyFits(**_joined(parts))

    def _side_by_side(self, entropy: int, numbers: Sequence[int]) -> dict[str, Any]:
        """Search several replicates at a time, each in a lane."""
        law, problem = self.law, self.problem
        assert law.design is not None
        drawn = [law.draw(generator(entropy, number)) for number in numbers]
        found: dict[str, Any] = core.fit_projected(
            law.design,
            np.stack([projected.T for projected, _ in drawn]),
            np.stack([perp for _, perp in drawn]),
            np.full(len(numbers), self._constant),
            compiled_terms(self.covariance),
            problem.n_obs,
            bool(problem.reml),
            self.start,
            MAX_ITER,
            self.n_threads,
            law.counts,
            law.z_in_x,
        )
        return found

    def _one_by_one(self, entropy: int, numbers: Sequence[int]) -> dict[str, Any]:
        """Search one replicate after the other, each with all threads; the next ones are drawn."""
        law = self.law
        blocks = aligned_zeros(law.blocks.shape)
        blocks[...] = law.blocks
        found = []
        with ThreadPoolExecutor(self.n_threads) as pool:
            drawn: deque[Future[tuple[Array, Array]]] = deque()
            waiting = iter(numbers)
            for number in islice(waiting, self.n_threads):
                drawn.append(pool.submit(law.draw, generator(entropy, number)))
            while drawn:
                projected, perp = drawn.popleft().result()
                for number in islice(waiting, 1):
                    drawn.append(pool.submit(law.draw, generator(entropy, number)))
                found.append(self._search(blocks, projected, perp))
        return {name: np.array([one[name] for one in found]) for name in found[0]}

    def _search(self, blocks: Array, projected: Array, perp: Array) -> dict[str, Any]:
        """Search one replicate, whose Q'y are written into the blocks."""
        law, problem = self.law, self.problem
        q, n_x = law.q, len(self.basis.x_scale)
        n_R = q * (q + 1) // 2
        for a in range(q):
            blocks[:, n_R + a * (n_x + 1) + n_x] = projected[a].reshape(len(blocks), core.lanes)
        whole, kept = np.zeros((n_x + 1, n_x + 1)), np.append(problem.keep, n_x)
        whole[np.ix_(kept, kept)] = perp
        end = core.maximise(
            blocks,
            q,
            n_x + 1,
            whole,
            compiled_terms(self.covariance),
            problem.keep.tolist(),
            problem.n_obs,
            bool(problem.reml),
            self._constant,
            self.start,
            MAX_ITER,
            self.n_threads,
            None,
            law.z_in_x,
            identified=True,
        )
        return _as_many(end, len(problem.keep), self.covariance)

    def _user_scale(self, found: dict[str, Any]) -> ManyFits:
        """From units of sigma in the working basis to those of the response."""
        basis, covariance = self.basis, self.covariance
        loglik, sigma2, decrement, *_ = found["numbers"].T
        status = np.full(len(loglik), "", dtype=object)
        name_endings(found, status, covariance.sizes, limit_reason(MAX_ITER))
        A, A_z, variance = basis.x_map(self.problem.keep), basis.z_map(), self.unit * sigma2
        D = variance[:, None, None] * (A_z @ found["D"] @ A_z.T)
        bse = np.sqrt(variance[:, None] * ((A @ found["S_inv_root"]) ** 2).sum(axis=2))
        variances = variance * basis.weight_scale
        fits = ManyFits(
            beta=self.beta + np.sqrt(self.unit) * (found["beta"] @ A.T),
            bse=bse,
            D=D,
            sigma2=variances,
            llf=np.ascontiguousarray(loglik),
            status=status,
            decrement=np.ascontiguousarray(decrement),
            evaluations=found["evaluations"],
        )
        fits.theta = np.column_stack([natural_parameters(covariance, D), variances])
        nothing = np.isin(status, NO_FIT)
        for values in (fits.beta, bse, D, variances, fits.theta, fits.llf, fits.decrement):
            values[nothing] = np.nan
        return fits


#: Endings of a search, in the order of the core's numbers.
_ENDINGS = ("converged", "stalled", "saddle", "iteration limit", "not identified", "failed")


def _as_many(end: dict[str, Any] | None, p: int, covariance: BlockCovariance) -> dict[str, Any]:
    """One search as `core.fit_responses` has many."""
    if end is None:
        q = covariance.q
        nothing = [np.full(shape, np.nan) for shape in ((5,), (p,), (p, p), (q, q))]
        names = ("numbers", "beta", "S_inv_root", "D")
        ended = {"status": len(_ENDINGS) - 1, "ranks": list(covariance.sizes), "evaluations": 0}
        return {**dict(zip(names, nothing, strict=True)), **ended}
    numbers = [end[name] for name in ("loglik", "sigma2", "decrement", "smallest_eigenvalue")]
    return {
        "numbers": np.array([*numbers, np.nan], dtype=np.float64),
        **{name: end[name] for name in ("beta", "S_inv_root", "D", "ranks")},
        "status": _ENDINGS.index(end["status"]),
        "evaluations": len(end["trace"][0]),
    }


def has_moments(fit: LMMResult) -> bool:
    """Whether replicates of a fit can be drawn and fitted from moments."""
    return (
        isinstance(fit._engine, MomentsEngine) and is_compiled(fit._covariance) and not fit._n_flat
    )


def moments_model(fit: LMMResult, n_threads: int) -> MomentsModel:
    """Set up replicates of a fit that has moments."""
    engine: Any = fit._need(fit._engine, "replicates")
    problem = fit._problem
    return MomentsModel(
        law=moments_law(engine.clusters, problem.keep, fit._Lambda, n_threads),
        problem=problem,
        covariance=fit._covariance,
        basis=fit._basis,
        beta=fit._estimates.beta,
        unit=fit._unit,
        start=_start(fit),
        n_threads=n_threads,
    )


def _start(fit: LMMResult) -> Array:
    """Root parameters of the fit; off the boundary, where a search begins flat."""
    if not fit.certificate.on_boundary:
        return fit._phi
    lifted = floor_eigenvalues(fit._D, np.eye(len(fit._D)))
    assert lifted is not None
    return fit._covariance.phi(lifted[0])


def named(fits: ManyFits, fit: LMMResult, numbers: NDArray[np.int64]) -> ManyFits:
    """Give replicates of a fit the names that it has."""
    fits.y_names = [str(number) for number in numbers]
    fits.x_names, fits.z_names, fits.theta_names = fit.x_names, fit.z_names, fit.theta_names
    fits.terms, fits.group_name = tuple(fit.terms), fit.group_name
    fits.nobs, fits.ngroups, fits.method = fit.nobs, fit.ngroups, fit.method
    return fits


def _joined(parts: list[ManyFits]) -> dict[str, Any]:
    """Arrays of several sets of replicates."""
    names = "beta bse D sigma2 llf status decrement evaluations theta".split()
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
