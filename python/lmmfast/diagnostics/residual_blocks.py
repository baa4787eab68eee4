"""R of blocks of rows and its derivatives, once for all clusters seen at the same times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.implied.implied import Rows, rows_at
from lmmfast.residual.dense import residual_covariance
from lmmfast.residual.layout import Stratum

if TYPE_CHECKING:
    from lmmfast.covariance.joint import JointCovariance
    from lmmfast.result import LMMResult


def residual_covariances(fit: LMMResult, here: NDArray[np.intp]) -> Array:
    """R of blocks of rows at places (b, k) of `LMMResult._row_order`, (b, k, k)."""
    b, k = here.shape
    out = np.zeros((b, k, k))
    if fit._residual_model is None:
        relative = rows_at(fit, here.reshape(-1)).inverse_root_weights ** 2
        out[:, range(k), range(k)] = fit._unit * relative.reshape(b, k)
        return out
    for alike in _alike(fit, here):
        R = _dense(fit, alike)[0]
        out[alike.at()] = R * alike.roots[:, :, None] * alike.roots[:, None, :]
    return out


def residual_derivatives(fit: LMMResult, here: NDArray[np.intp]) -> Array:
    """Derivatives of R by the parameters kappa of the residual structure, (b, n_kappa, k, k)."""
    b, k = here.shape
    model = fit._residual_model
    if model is None:
        return np.zeros((b, 0, k, k))
    out = np.zeros((model.parameters.n_params, b, k, k))
    for alike in _alike(fit, here):
        scale = alike.roots[:, :, None] * alike.roots[:, None, :]
        for own, derivative in zip(out, _dense(fit, alike)[1], strict=True):
            own[alike.at()] = derivative * scale
    return out.swapaxes(0, 1)


@dataclass(frozen=True, eq=False)
class _Alike:
    """Clusters, c of them with k rows each, whose R are the same but for weights.

    Attributes
    ----------
    block : ndarray of int (c,)
    rows : ndarray of int (c, k)
        Within the block.
    roots : ndarray (c, k)
        Roots of 1 / w.
    like : Rows
        What R depends on, of one of them.
    """

    block: NDArray[np.intp]
    rows: NDArray[np.intp]
    roots: Array
    like: Rows

    def at(self) -> tuple[Any, Any, Any]:
        """Where the matrices of these clusters stand in those of the blocks."""
        return self.block[:, None, None], self.rows[:, :, None], self.rows[:, None, :]


def _dense(fit: LMMResult, alike: _Alike) -> tuple[Array, Array]:
    """R and its derivatives for weights of one."""
    model, like = fit._residual_model, alike.like
    assert model is not None and like.stratum is not None
    kappa = cast("JointCovariance", fit._covariance).kappa(fit._phi)
    roots = np.full(alike.rows.shape[1], np.sqrt(fit._unit))
    return residual_covariance(
        model.parameters, like.stratum, kappa, like.G, like.positions, like.coords, roots
    )


def _alike(fit: LMMResult, here: NDArray[np.intp]) -> Iterator[_Alike]:
    """Go over the clusters of blocks, those of one pattern together."""
    model = fit._residual_model
    assert model is not None
    flat = rows_at(fit, here.reshape(-1))
    cluster = np.searchsorted(model.ptr, here.reshape(-1), side="right") - 1
    order = np.argsort(cluster, kind="stable")
    found, starts, sizes = np.unique(cluster[order], return_index=True, return_counts=True)
    for size in np.unique(sizes):
        of_size = np.flatnonzero(sizes == size)
        places = order[starts[of_size, None] + np.arange(size)]
        stratum = model.stratum[found[of_size]]
        for members in _same_rows(_keys(flat, places, stratum)):
            own = places[members]
            like = _part(flat, own[0], model.parameters.strata[stratum[members[0]]])
            roots = flat.inverse_root_weights[own]
            block, rows = np.divmod(own, here.shape[1])
            yield _Alike(block[:, 0], rows, roots, like)


def _keys(flat: Rows, places: NDArray[np.intp], stratum: NDArray[np.intp]) -> Array:
    """All that R of each cluster depends on but weights, a row for each cluster."""
    columns = [stratum[:, None].astype(np.float64)]
    for values in (flat.positions, flat.coords, flat.G):
        if values is not None:
            columns.append(values[places].reshape(len(places), -1).astype(np.float64))
    return np.column_stack(columns)


def _same_rows(keys: Array) -> list[NDArray[np.intp]]:
    """Places of each distinct row."""
    code = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(code, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


def _part(rows: Rows, chosen: NDArray[np.intp], stratum: Stratum) -> Rows:
    """Some of the rows, of one stratum."""

    def take(values: Any) -> Any:
        return None if values is None else values[chosen]

    roots = rows.inverse_root_weights[chosen]
    G, positions, coords = take(rows.G), take(rows.positions), take(rows.coords)
    return Rows(rows.Z[chosen], roots, G, positions, coords, stratum)
