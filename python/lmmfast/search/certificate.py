"""What is known about the point where the search ended, in numbers and in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.random import Term
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.search.optimum import SADDLE, Optimum
from lmmfast.search.scoring import Point, Search

# An eigenvalue of D below this many standard errors is zero.
ZERO_EIGENVALUE = 1e-8
# A multiplier above this many standard errors would mean that D should grow.
MULTIPLIER_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Certificate:
    """Evidence that a point is a maximum of the likelihood.

    Attributes
    ----------
    converged : bool
    status : str
        One sentence: converged, converged on the boundary (what is zero), or why not.
    decrement : float
        Newton decrement g'H^-1 g, free of scale: twice the log-likelihood still to be gained; its
        square root is the distance to the optimum in standard errors.
    smallest_eigenvalue : float
        Smallest eigenvalue of the negative Hessian by the root parameters, scaled to unit
        standard errors; negative only at a saddle.
    rank : dict of str to tuple of int
        For each term, the rank of D and its size.
    multiplier : float or None
        On the boundary: largest slope of the log-likelihood, in standard errors, into the cone
        along the null space of D. Not positive at a maximum. None in the interior.
    evaluations : int
        Passes over the clusters.
    """

    converged: bool
    status: str
    decrement: float
    smallest_eigenvalue: float
    rank: dict[str, tuple[int, int]]
    multiplier: float | None
    evaluations: int

    @property
    def on_boundary(self) -> bool:
        """Whether D of some term is singular."""
        return any(rank < q for rank, q in self.rank.values())

    def __str__(self) -> str:
        """Return the status with its numbers."""
        passes = "1 evaluation" if self.evaluations == 1 else f"{self.evaluations} evaluations"
        numbers = f"Newton decrement {self.decrement:.1e}, {passes}"
        if self.multiplier is not None:
            numbers += f", multiplier {self.multiplier:.2g}"
        return f"{self.status} ({numbers})"


def standard_errors(point: Point, covariance: BlockCovariance) -> Array:
    """Rough standard errors of the diagonal of Ddot, (q,)."""
    row, column = covariance.pairs
    info = np.diag(point.evaluation.totals.info)[: len(row)][row == column]
    return np.asarray(1.0 / np.sqrt(np.where(info > 0, info, 1.0)))


def scaled_eigen(point: Point, covariance: BlockCovariance, columns: slice) -> tuple[Array, Array]:
    """Eigenvalues and -vectors of a term's Ddot in units of its standard errors."""
    unit = np.sqrt(standard_errors(point, covariance)[columns])
    values, vectors = np.linalg.eigh(point.D[columns, columns] / np.outer(unit, unit))
    return values, unit[:, None] * vectors


def snap_to_boundary(search: Search, point: Point) -> Point:
    """Set eigenvalues of D that are zero but for rounding to zero."""
    covariance, D = search.covariance, point.D.copy()
    for columns in covariance.columns:
        values, vectors = scaled_eigen(point, covariance, columns)
        if 0 < values[0] <= ZERO_EIGENVALUE:
            values = np.where(values <= ZERO_EIGENVALUE, 0.0, values)
            D[columns, columns] = (vectors * values) @ vectors.T
    if np.array_equal(D, point.D):
        return point
    D[np.diag(D) <= 0] = 0.0
    search.barrier, search.held = point.barrier, point.held
    snapped = search.try_evaluate(covariance.moved(point.phi, D), "snap to the boundary")
    return point if snapped is None or snapped.loglik < point.loglik - 1e-9 else snapped


def conclude(search: Search, point: Point, reason: str) -> Optimum:
    """Judge the end of a search in numbers."""
    covariance, evaluation = search.covariance, point.evaluation
    ranks = [
        int(np.sum(scaled_eigen(point, covariance, columns)[0] > ZERO_EIGENVALUE))
        for columns in covariance.columns
    ]
    on_boundary = any(rank < q for rank, q in zip(ranks, covariance.sizes, strict=True))
    multiplier = _multiplier(point, covariance) if on_boundary else None
    if reason == "converged" and multiplier is not None and multiplier > MULTIPLIER_TOLERANCE:
        reason = SADDLE
    return Optimum(
        reason=reason,
        phi=point.phi,
        Lambda=covariance.Lambda(point.phi),
        D=point.D,
        sigma2=evaluation.sigma2,
        beta=evaluation.beta,
        S_inv_root=evaluation.S_inv_root,
        loglik=point.loglik,
        decrement=point.decrement,
        smallest_eigenvalue=point.smallest_eigenvalue,
        ranks=ranks,
        multiplier=multiplier,
        trace=search.trace,
    )


def certify(optimum: Optimum, covariance: BlockCovariance, terms: tuple[Term, ...]) -> Certificate:
    """Judge the end of a search in words."""
    ranks, sentences = {}, []
    for number, (term, columns) in enumerate(zip(terms, covariance.columns, strict=True)):
        rank, q = optimum.ranks[number], covariance.sizes[number]
        label = term.group if len(terms) == 1 else f"{term.group} ({', '.join(term.names)})"
        ranks[label if label not in ranks else f"{label} #{number + 1}"] = rank, q
        if rank < q:
            sentences.append(_boundary_sentence(optimum.D[columns, columns], term, rank))
    sentences += covariance.edges(optimum.phi)
    converged = optimum.reason == "converged"
    return Certificate(
        converged=converged,
        status=_on_boundary(sentences) if converged else f"not converged: {optimum.reason}",
        decrement=optimum.decrement,
        smallest_eigenvalue=optimum.smallest_eigenvalue,
        rank=ranks,
        multiplier=optimum.multiplier,
        evaluations=len(optimum.trace),
    )


def converged_status(
    ranks: Sequence[int], D: Array, covariance: BlockCovariance, terms: tuple[Term, ...]
) -> str:
    """Return the status of a search that converged at D (q, q), with that rank for each term."""
    return _on_boundary(
        [
            _boundary_sentence(D[columns, columns], term, rank)
            for term, columns, rank, q in zip(
                terms, covariance.columns, ranks, covariance.sizes, strict=True
            )
            if rank < q
        ]
    )


def _on_boundary(sentences: list[str]) -> str:
    return "converged on the boundary: " + "; ".join(sentences) if sentences else "converged"


def _boundary_sentence(D: Array, term: Term, rank: int) -> str:
    zero = [name for name, v in zip(term.names, np.diag(D), strict=True) if v <= 0]
    if rank == 0:
        zero = list(term.names)
    if len(zero) == 1:
        return f"the variance of {zero[0]} by {term.group} is zero"
    if zero:
        return f"the variances of {', '.join(zero)} by {term.group} are zero"
    if len(D) == 2:
        sign = "1" if D[0, 1] > 0 else "-1"
        return f"the correlation of {term.names[0]} and {term.names[1]} by {term.group} is {sign}"
    return (
        f"the covariance matrix of {', '.join(term.names)} by {term.group} has rank {rank}, "
        f"not {len(D)}"
    )


def _multiplier(point: Point, covariance: BlockCovariance) -> float:
    """Second-order slope along directions of phi that leave D unchanged at first (eq. 4.7)."""
    se = standard_errors(point, covariance)
    row, column = covariance.pairs
    K, n = len(row), covariance.params[-1].stop  # the parameters of D stand first
    scale = point.scale[:n]
    J = covariance.jacobian(point.phi)[:n, :K] * scale[:, None]
    J = J / np.sqrt(se[row] * se[column])
    U, sizes, _ = np.linalg.svd(J)
    rank = int(np.sum(sizes > 1e-3))
    null = U[:, rank:]
    if null.shape[1] == 0:
        return 0.0
    slope = covariance.bend(point.phi, point.evaluation.score)[:n, :n]
    slope = null.T @ (slope * np.outer(scale, scale)) @ null
    return float(np.linalg.eigvalsh(slope)[-1])
