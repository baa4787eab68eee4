"""Correlations between rows of the same clusters, many clusters of one size at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual import definitions
from lmmfast.residual.dense import evaluate_custom
from lmmfast.residual.layout import ResidualParameters
from lmmfast.residual.place import Places


def correlations(parameters: ResidualParameters, psi: Array, one: Places, other: Places) -> Array:
    """Correlations of rows with others of their cluster, (k, a, b).

    Parameters
    ----------
    psi : ndarray (n_psi,)
        Of the stratum that all k clusters belong to.
    one, other : Places
        Of k times a and k times b rows: positions (k, a), coords (k, a, d).
    """
    correlation = parameters.correlation
    assert correlation is not None
    if correlation.custom is not None:
        return _custom(parameters, psi, one, other)[0]
    return np.asarray(_by_definition(parameters, psi, one, other))


def correlation_derivatives(
    parameters: ResidualParameters, psi: Array, one: Places, other: Places
) -> Array:
    """Derivatives of `correlations` by psi, (n_psi, k, a, b)."""
    correlation = parameters.correlation
    assert correlation is not None
    if correlation.custom is not None:
        return _custom(parameters, psi, one, other)[1]
    return definitions.complex_step(lambda x: _by_definition(parameters, x, one, other), psi)


def _by_definition(parameters: ResidualParameters, psi: Any, one: Places, other: Places) -> Any:
    """By the definitions; complex psi go through."""
    correlation = parameters.correlation
    assert correlation is not None
    if correlation.kind in definitions.TABLES:
        assert one.positions is not None and other.positions is not None
        table = definitions.TABLES[correlation.kind](psi, parameters.T)
        if not correlation.columns:  # a row that the fit does not have stands beyond the others
            table = np.pad(table, (0, 1), mode="edge")
            table[-1, :-1] = table[:-1, -1] = table[0, 1]
        return table[one.positions[..., :, None], other.positions[..., None, :]]
    assert one.coords is not None and other.coords is not None
    steps = one.coords[..., :, None, :] - other.coords[..., None, :, :]
    if steps.shape[-1] == 1:
        return definitions.DISTANCES[correlation.kind](psi, np.abs(steps[..., 0]))
    return definitions.DISTANCES[correlation.kind](psi, np.sqrt((steps**2).sum(axis=-1)))


def _custom(
    parameters: ResidualParameters, psi: Array, one: Places, other: Places
) -> tuple[Array, Array]:
    """By a user's own function, which is asked for one cluster at a time."""
    custom = parameters.correlation.custom if parameters.correlation is not None else None
    assert custom is not None and one.coords is not None and other.coords is not None
    a, found = one.coords.shape[-2], []
    for these, those in zip(one.coords, other.coords, strict=True):
        if one is other:
            found.append(evaluate_custom(custom, psi, these))
            continue
        C, dC = evaluate_custom(custom, psi, np.concatenate([these, those]))
        found.append((C[:a, a:], dC[:, :a, a:]))
    values, derivatives = zip(*found, strict=True)
    return np.array(values), np.stack(derivatives, axis=1)
