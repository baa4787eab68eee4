"""From the working basis back to the user's units: coefficients, variances, likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.packing.basis import DEPENDENT, Basis
from lmmfast.search.objective import Evaluation, Problem
from lmmfast.search.optimum import Optimum


@dataclass(frozen=True)
class Estimates:
    """Results on the user's scale, without names.

    Attributes
    ----------
    beta : ndarray (p,)
    cov_beta : ndarray (p, p)
        (X'V^-1 X)^-1.
    D : ndarray (q, q)
    sigma2 : float
        Residual variance.
    loglik : float
        With all constants (docs/algorithm.md, eq. 1.3-1.4).
    theta : ndarray (n_params + 1,)
        Natural variance parameters of all terms, then sigma2.
    """

    beta: Array
    cov_beta: Array
    D: Array
    sigma2: float
    loglik: float
    theta: Array


def make_problem(
    keep: NDArray[np.intp], n_obs: int, reml: bool, basis: Basis, log_weights: float
) -> Problem:
    """Set up the likelihood with the constant of the user's scale (docs/algorithm.md, eq. 3.3)."""
    problem = Problem(keep, n_obs, reml)
    constant = 0.5 * log_weights - problem.df * float(np.log(basis.y_scale))
    if reml:
        constant += basis.x_log_det(keep)
    return replace(problem, constant=constant)


def estimates(
    optimum: Optimum, keep: NDArray[np.intp], basis: Basis, covariance: BlockCovariance
) -> Estimates:
    """Convert the optimum to the user's scale (docs/algorithm.md, eq. 5.1-5.2)."""
    A = basis.x_map(keep)
    beta = basis.y_scale * (A @ (optimum.beta + basis.beta[keep]))
    if basis.unit is not None:
        beta += basis.y_shift * basis.unit[keep]
    variance_unit = basis.y_scale * basis.y_scale * optimum.sigma2
    root = A @ optimum.S_inv_root
    A_z = basis.z_map()
    D = variance_unit * (A_z @ optimum.D @ A_z.T)
    D[(np.diag(D) == 0) & (np.diag(optimum.D) > 0)] = np.nan  # underflow: see check_scales
    sigma2 = variance_unit * basis.weight_scale
    return Estimates(
        beta=beta,
        cov_beta=variance_unit * (root @ root.T),
        D=D,
        sigma2=sigma2,
        loglik=optimum.loglik,
        theta=covariance.theta(D, sigma2, optimum.phi),
    )


def theta_information(
    evaluation: Evaluation, basis: Basis, covariance: BlockCovariance, working_D: Array, D: Array
) -> Array:
    """Expected information for (natural parameters of D, kappa, sigma2) on the user's scale.

    Eq. 5.3; kappa are the working parameters of a residual structure, if there is one.

    Parameters
    ----------
    evaluation : Evaluation
        With ``kr`` in its totals: then the REML information is exact.
    working_D : ndarray (q, q)
        Relative to sigma2, in the working basis.
    D : ndarray (q, q)
        On the user's scale.
    """
    joint = evaluation.joint_info(working_D[covariance.pairs])
    J = working_by_natural(evaluation.sigma2, basis, covariance, D, len(joint))
    return np.asarray(J @ joint @ J.T)


def working_by_natural(
    working_sigma2: float, basis: Basis, covariance: BlockCovariance, D: Array, n_working: int
) -> Array:
    """Derivatives of (vech(D), kappa, sigma2) in the working basis, in units of its sigma2.

    Parameters
    ----------
    working_sigma2 : float
    D : ndarray (q, q)
        On the user's scale.
    n_working : int
        Number of these: of parameters of the totals, and one.

    Returns
    -------
    ndarray (n_natural, n_working)
        By (natural parameters of D, kappa, sigma2) on the user's scale.
    """
    pairs = covariance.pairs
    unit = basis.y_scale * basis.y_scale * working_sigma2
    # Derivatives of the working vech(D) by the user's natural parameters, dD_w = B dD B'.
    B = np.linalg.inv(basis.z_map())
    C = covariance.natural_jacobian(D)
    dD = np.zeros((len(C), covariance.q, covariance.q))
    dD[:, pairs[0], pairs[1]] = dD[:, pairs[1], pairs[0]] = C
    J = np.eye(n_working)
    n, K = len(C), C.shape[1]
    J[:n, :K] = (B @ dD @ B.T)[:, *pairs] / unit
    J = np.delete(J, range(n, K), axis=0)
    J[-1, -1] = 1.0 / (unit * basis.weight_scale)
    return J


def parameter_units(
    basis: Basis, covariance: BlockCovariance, working_sigma2: float, D: Array
) -> Array:
    """Sizes of the parameters theta at which their part in V is about sigma2, (n_theta,).

    Parameters
    ----------
    working_sigma2 : float
    D : ndarray (q, q)
        On the user's scale.
    """
    unit = basis.y_scale * basis.y_scale * working_sigma2
    C = np.abs(covariance.natural_jacobian(D))
    effects = np.linalg.norm(basis.z_map(), axis=1)
    row, column = covariance.pairs
    own = 1.0 / np.max(C / (unit * effects[row] * effects[column]), axis=1) if len(C) else []
    return np.append(own, covariance.tail_units(unit * basis.weight_scale))


def independent_columns(gram: Array, basis: Basis, tolerance: float = 1e-12) -> NDArray[np.intp]:
    """Columns of X that no earlier ones determine; those that make up the constant come first.

    A column goes when less than ``tolerance`` of its sum of squares lies beyond the kept ones; of
    columns that the basis has mixed less than DEPENDENT^2 of what they were before.

    Parameters
    ----------
    gram : ndarray (p, p)
        X'X in the working basis.
    """
    p = len(gram)
    limit = np.full(p, tolerance)
    if basis.x_mix is not None:
        growth = np.diag(basis.x_mix)
        limit = np.where(growth > 1, DEPENDENT**2 * growth**2, limit)
    first = basis.unit_columns
    order = np.array(
        [*first, *np.setdiff1d(np.arange(p), [*first, *basis.excluded])], dtype=np.intp
    )
    order = order[np.diag(gram)[order] > 0]
    size = np.sqrt(np.diag(gram)[order])
    scaled, limit = gram[np.ix_(order, order)] / np.outer(size, size), limit[order]
    # Cholesky by columns, left-looking; a column whose pivot is too small is left out.
    root = np.zeros((len(order), len(order)))
    kept: list[int] = []
    for j in range(len(order)):
        k = len(kept)
        column = scaled[j:, j] - root[j:, :k] @ root[j, :k]
        if column[0] > limit[j]:
            root[j:, k] = column / np.sqrt(column[0])
            kept.append(j)
    return np.sort(order[kept])
