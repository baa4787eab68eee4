"""The inverse of an information matrix, where parts of it may carry no information."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array

_EPS = float(np.finfo(float).eps)

#: A root of the information below this part of the largest is rounding.
NO_INFORMATION = 1e-7
#: Eigenvalues, of a correlation matrix, of directions that are known to have no information; more
#: is not rounding, but a parameter less.
FLAT = 1e-4
#: Weights of parameters, in standard errors, below this are rounding in these directions.
ROUNDED = 1e-5
#: A weight below this in a direction is rounding.
NO_WEIGHT = 1e-6


def flat_directions(
    information: Array,
    n_flat: int | None = None,
    units: Array | None = None,
    jacobian: Array | None = None,
) -> tuple[Array, Array]:
    """Directions without information, and the inverse of the information along the others.

    Parameters
    ----------
    information : ndarray (k, k)
        Finite, symmetric.
    n_flat : int, optional
        How many directions have none, at most; default: those that rounding explains.
    units : ndarray (k,), optional
        Sizes of the parameters by which those are found of which there is no information at all;
        default: there are none, and no zero is on the diagonal.
    jacobian : ndarray (k, k), optional
        Derivatives by these parameters of others in which directions are looked for, those of
        ``units``.

    Returns
    -------
    directions : ndarray (n_flat, k)
    cov : ndarray (k, k)
    """
    if jacobian is not None:
        T = np.linalg.inv(jacobian)
        directions, cov = flat_directions(T.T @ information @ T, n_flat, units)
        return directions @ T.T, T @ cov @ T.T
    scale = np.sqrt(np.abs(np.diag(information)))
    if units is not None:
        size = scale * units
        scale = np.where(size > NO_INFORMATION * size.max(), size, size.max()) / units
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    known = values > len(values) * _EPS * values[-1]
    if n_flat is not None:
        known = (np.arange(len(values)) >= n_flat) | (values > FLAT * values[-1])
    found, lost = vectors[:, known], vectors[:, ~known].T
    cov = (found / values[known]) @ found.T / np.outer(scale, scale)
    rounding = np.sqrt(_EPS) if n_flat is None else ROUNDED
    return np.where(np.abs(lost) > rounding, lost, 0.0) / scale, cov


def moved_by(directions: Array, jacobian: Array) -> tuple[Array, NDArray[np.bool_]]:
    """By how much directions move parameters (n_flat, n), and which they move at all (n,).

    Parameters
    ----------
    directions : ndarray (n_flat, k)
        By the parameters that the information is of.
    jacobian : ndarray (n, k)
        Derivatives of others by these.
    """
    moves = directions @ jacobian.T
    terms = np.abs(directions) @ np.abs(jacobian.T)
    moves = np.where(np.abs(moves) > NO_WEIGHT * terms, moves, 0.0)
    return moves, (moves != 0).any(axis=0)


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
    lost, cov = flat_directions(information)
    undetermined = (lost != 0).any(axis=0)
    cov[undetermined] = np.nan
    cov[:, undetermined] = np.nan
    return cov


def without_negative_variances(blocks: Array) -> Array:
    """Covariance matrices (m, q, q), those with a negative variance by rounding made nonnegative.

    Their negative eigenvalues become zero.
    """
    diagonal = np.diagonal(blocks, axis1=1, axis2=2)
    bad = (diagonal < 0).any(axis=1)
    if not bad.any():
        return blocks
    out = blocks.copy()
    values, vectors = np.linalg.eigh(blocks[bad])
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    out[bad] = root @ root.transpose(0, 2, 1)
    return out
