"""The log determinant of what has to be positive definite, with its derivatives."""

from __future__ import annotations

from dataclasses import dataclass

from lmmfast.arrays import Array


@dataclass(frozen=True)
class LogDeterminant:
    """A log determinant and its derivatives by the search parameters.

    Attributes
    ----------
    value : float
    g : ndarray (n_params,)
    bent : ndarray (n_params, n_params)
        The part of the negative Hessian that is positive semidefinite: that of a matrix linear in
        its parameters.
    straight : ndarray (n_params,)
        Diagonal of the rest.
    """

    value: float
    g: Array
    bent: Array
    straight: Array
