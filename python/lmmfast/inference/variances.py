"""Standard errors of the entries of D from those of the variance parameters (delta method)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.terms import Term


def covariance_errors(
    terms: Sequence[Term], blocks: Sequence[Array], theta_cov: Array
) -> list[Array]:
    """Return the standard errors of the entries of each term's D.

    Parameters
    ----------
    terms : sequence of Term
    blocks : sequence of ndarray (q_t, q_t)
        D of each term.
    theta_cov : ndarray (K + 1, K + 1)
        Covariance matrix of the natural variance parameters of all terms, then sigma2; NaN where
        it is not known.

    Returns
    -------
    list of ndarray (q_t, q_t)
        NaN for an entry that depends on parameters with NaN in ``theta_cov``.
    """
    errors, start = [], 0
    for term, D in zip(terms, blocks, strict=True):
        jacobian = term.structure.natural_basis(D)  # (n_params, q_t, q_t)
        params = slice(start, start + len(jacobian))
        start = params.stop
        cov = theta_cov[params, params]
        unknown = np.isnan(np.diag(cov))
        with np.errstate(invalid="ignore"):
            variance = np.einsum(
                "kab,kl,lab->ab", jacobian, np.where(np.isnan(cov), 0.0, cov), jacobian
            )
        variance[(jacobian[unknown] != 0).any(axis=0)] = np.nan
        errors.append(np.sqrt(np.maximum(variance, 0.0)))
    return errors
