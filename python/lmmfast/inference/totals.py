"""What small-sample inference is made of: derivatives of the covariance of beta, and information.

Everything is in coordinates in which the covariance matrix (X'V^-1 X)^-1 of beta is the identity:
with G G' = (X'V^-1 X)^-1 a linear function l'beta has the coordinates G'l, and its variance is
their sum of squares. In these coordinates, with V_k the derivative of V by variance parameter k,

    q_k  = G'X'V^-1 V_k V^-1 X G,    r_kl = G'X'V^-1 V_k V^-1 V_l V^-1 X G,
    h_kl = G'X'V^-1 V_kl V^-1 X G,

and the derivative of the covariance matrix of beta is q_k. Totals give all of them at the optimum
(docs/algorithm.md, section 2); sigma2 has no totals of its own, for V is homogeneous of degree one
in (D, sigma2), so that sigma2 V_sigma2 = V - sum_k D_k V_k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.engines.totals import Totals
from lmmfast.errors import ConvergenceError
from lmmfast.inference.second_order import SecondOrder, second_order
from lmmfast.residual.structures import ResidualStructure
from lmmfast.search.estimates import working_by_natural
from lmmfast.search.objective import Evaluation

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


#: Step of differences by parameters of residuals, which are logarithms, angles and fractions; of
#: fractions it is a part of the way to zero or one, and this at least.
STEP = 4e-3
MAX_PART_OF_ROOM = 0.1
MIN_STEP = 1e-6


#: Correlations that with one variance are linear in covariances.
HOMOGENEOUS_LINEAR = ("compound_symmetry", "toeplitz", "banded_toeplitz")


@dataclass(frozen=True)
class InferenceTotals:
    """First and second derivatives by the variance parameters, at the optimum.

    The k parameters are the natural ones of D, then kappa of a residual structure, then sigma2, on
    the user's scale.

    Attributes
    ----------
    root : ndarray (p, p)
        G, with G G' the covariance matrix of beta.
    q : ndarray (k, p, p)
    r : ndarray (k, k, p, p) or None
        Symmetrised in its last axes; None where they were not asked for, and where the engine does
        not have them.
    h : ndarray (k, k, p, p) or None
        Of second derivatives of V; None where V is linear.
    expected : ndarray (k, k)
        Expected information; average information where the engine has that alone.
    observed : ndarray (k, k) or None
        Observed information; None on the boundary, where it describes nothing, and where the
        engine does not have what it takes.
    """

    root: Array
    q: Array
    r: Array | None
    h: Array | None
    expected: Array
    observed: Array | None


def has_linear_residuals(structure: ResidualStructure) -> bool:
    """Whether R is linear in some parameters: its second derivatives play no part then.

    At an interior optimum information transforms as a tensor, and the bias of Kenward and Roger is
    expanded by the parameters in which V is linear, as SAS PROC MIXED does.
    """
    correlation, variances = structure.correlation, structure.variances
    if any(variance.kind != "levels" for variance in variances) or len(variances) > 1:
        return False
    if correlation is None:
        return True
    if correlation.nugget:
        return False
    if correlation.kind == "unstructured":
        return len(variances) == 1
    shared = () if correlation.by is None else (correlation.by,)
    own = variances[0].columns if variances else ()
    same = len(own) == len(shared) and all(
        a is b or str(a) == str(b) for a, b in zip(own, shared, strict=True)
    )
    return correlation.kind in HOMOGENEOUS_LINEAR and same


def inference_totals(fit: LMMResult, with_r: bool = True) -> InferenceTotals:
    """Compute the derivatives that inference on beta needs, with one pass for each of them.

    Parameters
    ----------
    with_r : bool
        Whether ``r`` is wanted, which only Kenward and Roger's errors need: (k p)^2 numbers.

    Raises
    ------
    DataError
        A fit that holds no data.
    """
    engine: Any = fit._need(fit._engine, "small-sample inference")
    totals = engine.totals(fit._Lambda, with_kr=True)
    evaluation = Evaluation(fit._problem, totals)
    covariance, basis = fit._covariance, fit._basis
    vech_D = evaluation._padded(fit._D[covariance.pairs])
    G = evaluation.S_inv_root
    second: SecondOrder | None = None
    interior = (
        fit._n_flat == 0
        and not fit.certificate.on_boundary
        and bool(covariance.free(fit._phi).all())
        and all(structure.linear for structure in covariance.structures)
    )
    if isinstance(covariance, JointCovariance) and not has_linear_residuals(fit.residual):
        try:
            second = _second_order(fit, covariance, engine, evaluation)
        except ConvergenceError:  # so near the end of the range that differences leave it
            interior = False
    first = _with_sigma2(evaluation, vech_D, second, with_r)
    J = working_by_natural(evaluation.sigma2, basis, covariance, fit._estimates.D, len(first.q))
    # Where a variance is zero, a correlation with it that is not makes D steeper than any number:
    # that parameter is held fixed.
    J[~np.isfinite(J).all(axis=1)] = 0.0
    expected = evaluation.joint_info(fit._D[covariance.pairs])
    root = np.sqrt(fit._unit) * basis.x_map(fit._keep) @ G
    return InferenceTotals(
        root=root,
        q=np.einsum("ia,apq->ipq", J, first.q),
        r=_by_pairs(J, first.r),
        h=_by_pairs(J, first.h),
        expected=J @ expected @ J.T,
        observed=J @ first.observed @ J.T if interior and first.observed is not None else None,
    )


def _by_pairs(J: Array, sums: Array | None) -> Array | None:
    """Sums by pairs of natural parameters, of those by pairs of working ones.

    In the order of their axes: what is computed from them rounds alike before and after saving.
    """
    if sums is None:
        return None
    return np.ascontiguousarray(np.einsum("ia,jb,abpq->ijpq", J, J, sums, optimize=True))


def _second_order(
    fit: LMMResult, covariance: JointCovariance, engine: Any, evaluation: Evaluation
) -> SecondOrder:
    """Second derivatives by the parameters of the residual structure."""
    kappa = covariance.kappa(fit._phi)
    steps = np.full(len(kappa), STEP)
    fractions = covariance.residual.fractions
    room = np.minimum(kappa[fractions], 1 - kappa[fractions])
    steps[fractions] = np.clip(room * MAX_PART_OF_ROOM, MIN_STEP, STEP)

    def at(new_kappa: Array) -> Evaluation:
        moved: Totals = engine.at(new_kappa).totals(fit._Lambda, with_kr=False)
        return Evaluation(fit._problem, moved)

    return second_order(evaluation, kappa, steps, at)


@dataclass(frozen=True)
class _Working:
    q: Array
    r: Array | None
    h: Array | None
    observed: Array | None


def _with_sigma2(
    evaluation: Evaluation, vech_D: Array, second: SecondOrder | None, with_r: bool
) -> _Working:
    """Derivatives by (vech(D), kappa, sigma2) in units of sigma2, in the coordinates of G."""
    G, c, sigma2 = evaluation.S_inv_root, evaluation.c, evaluation.sigma2
    p, K = len(G), len(vech_D)
    quad = evaluation._quad
    own = G.T @ quad[:, :-1, :-1] @ G
    M = np.vstack([np.eye(K), -vech_D])  # (q_1 … q_K, q_sigma2 - identity) from the q_k
    q = np.einsum("ak,kpq->apq", M, own)
    q[K] += np.eye(p)
    h = None
    if second is not None:
        h = np.zeros((K + 1, K + 1, p, p))
        h[:K, :K] = second.h
        for k in second.places:  # V = ZDZ' + sigma2 Rdot(kappa)
            h[k, K] = h[K, k] = own[k]
    if evaluation.totals.kr is None or evaluation.totals.average:
        return _Working(q, None, h, None)
    kr = evaluation._kept(evaluation.totals.kr)
    r = _second_order_sums(kr, own, M, vech_D, G) if with_r else None
    u = M @ ((quad @ c)[:, :-1] @ G) / np.sqrt(sigma2)
    curvature = (kr @ c) @ c / sigma2
    curvature = M @ (0.5 * (curvature + curvature.T)) @ M.T
    of_residuals = evaluation.residual_quad
    curvature[:K, K] += of_residuals
    curvature[K, :K] += of_residuals
    curvature[K, K] += evaluation.problem.df - 2 * vech_D @ of_residuals
    observed = curvature - u @ u.T - evaluation.joint_info(vech_D)
    if second is not None:
        observed[:K, :K] += second.observed
    return _Working(q, r, h, observed)


def _second_order_sums(kr: Array, own: Array, M: Array, vech_D: Array, G: Array) -> Array:
    """The r_kl with those of sigma2, from the sums by vech(D) and kappa."""
    K, p = len(own), len(G)
    r_own = G.T @ kr[..., :-1, :-1] @ G
    r_own = 0.5 * (r_own + r_own.swapaxes(-1, -2))
    r: Array = np.einsum("ak,bl,klpq->abpq", M, M, r_own, optimize=True)
    r[:K, K] += own
    r[K, :K] += own
    r[K, K] += np.eye(p) - 2 * np.einsum("k,kpq->pq", vech_D, own)
    return r
