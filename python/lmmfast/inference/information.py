"""The inverse of an information matrix, where parts of it may carry no information."""

from __future__ import annotations

import numpy as np

from lmmfast.covariance import Array

_EPS = float(np.finfo(float).eps)


def inverse_information(information: Array) -> Array:
    """Invert an information matrix, with NaN for the parameters that it does not determine.

    Parameters
    ----------
    information : ndarray (k, k)
        Finite, symmetric, with no zero on its diagonal.

    Returns
    -------
    ndarray (k, k)
        The inverse; where some direction has no information (or, by rounding, a negative one), the
        covariances of the others along the remaining directions, and NaN for the parameters that
        this direction moves. Its diagonal is never negative.
    """
    scale = np.sqrt(np.abs(np.diag(information)))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    known = values > len(values) * _EPS * values[-1]
    vectors, lost = vectors[:, known], vectors[:, ~known]
    cov: Array = (vectors / values[known]) @ vectors.T / np.outer(scale, scale)
    undetermined = (np.abs(lost) > np.sqrt(_EPS)).any(axis=1)
    cov[undetermined] = np.nan
    cov[:, undetermined] = np.nan
    return cov
