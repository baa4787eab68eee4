"""Second derivatives of V by the reported parameters of a residual structure.

The bias term of Kenward and Roger (1997) has them, and depends on the parameters: theta as it is
reported is what SAS PROC MIXED expands by (variances, correlations, ranges).
"""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.inference.totals import InferenceTotals

#: Step of the differences of the derivatives of theta, which are analytic.
STEP = 1e-3


def natural_curvature(
    covariance: JointCovariance, phi: Array, sigma2: float, W: Array, totals: InferenceTotals
) -> Array:
    """Sum over i, j of W_ij h_ij by theta, (p, p).

    With eta the parameters of `InferenceTotals` and theta(eta) the reported ones,

        sum W^theta_ij h^theta_ij = sum W_ab h_ab - sum_a q_a sum_i (d eta_a / d theta_i) m_i,
        m_i = sum W_ab d^2 theta_i / d eta_a d eta_b.

    Parameters
    ----------
    W : ndarray (k, k)
        Covariance matrix of eta.
    """
    kappa = covariance.kappa(phi)
    first = covariance.theta_jacobian(sigma2, phi)
    second = np.zeros((*first.shape, len(first)))
    for j in range(len(kappa) + 1):
        second[..., covariance.n_random + j] = _derivative(covariance, kappa, sigma2, j)
    m = np.einsum("ab,iab->i", W, second)
    by_eta = np.linalg.solve(first, m)
    assert totals.h is not None
    own = np.einsum("ab,abpq->pq", W, totals.h)
    return np.asarray(own - np.einsum("a,apq->pq", by_eta, totals.q))


def _derivative(covariance: JointCovariance, kappa: Array, sigma2: float, j: int) -> Array:
    """Derivative of the Jacobian of theta by kappa_j, or by sigma2 (the last)."""

    def jacobian(step: float) -> Array:
        moved, variance = kappa.copy(), sigma2
        if j < len(kappa):
            moved[j] += step
        else:
            variance *= 1 + step
        own = covariance.residual.jacobian(moved, variance)
        out = np.zeros((covariance.n_random + len(own),) * 2)
        out[covariance.n_random :, covariance.n_random :] = own
        return out

    coarse, fine = ((jacobian(step) - jacobian(-step)) / (2 * step) for step in (STEP, STEP / 2))
    slope = (4 * fine - coarse) / 3
    return slope if j < len(kappa) else slope / sigma2
