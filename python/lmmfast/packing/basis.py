"""The working basis: X, Z and y centred and scaled, and the way back to the user's units.

Every change of basis is exact algebra, whatever numbers it uses; so shifts, scales and the working
coefficients may come from a sample of the rows. They only have to be near enough that nothing
cancels (docs/algorithm.md, eq. 3.1-3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.covariance.triangle import least_squares, triangle
from lmmfast.data.batch import CHUNK, Batch
from lmmfast.data.frame import as_float
from lmmfast.design.design import Design
from lmmfast.errors import DataError

SAMPLE_ROWS = 4096
# Columns of which more than this part lies beyond the earlier ones are left as they are.
WELL_CONDITIONED = 1e-2
# Columns of which less than this part lies beyond the earlier ones are dependent (lme4's limit).
DEPENDENT = 1e-7


@dataclass(frozen=True)
class Basis:
    """Working columns: (x - x_shift) / x_scale, likewise z; y less offset, y_shift and X beta.

    Attributes
    ----------
    unit : ndarray (p,) or None
        Coefficients u with X u = 1 in every row; only then are y and the columns with a zero in u
        shifted.
    z_units : ndarray of int (q,)
        Constant column of Z in the same term, by which a column of Z was shifted; -1: none.
    z_unit_values : ndarray (q,)
        Value of that constant column.
    x_mix, z_mix : ndarray (p, p), (q, q) or None
        Upper triangular: makes nearly dependent columns (powers of a year) nearly orthogonal.
    beta : ndarray (p,)
        Coefficients, in the working basis, of the working residual.
    excluded : ndarray of int
        Columns of X that have no part in the basis, because they will be dropped.
    weighted : bool
        Whether rows have weights.
    weight_scale : float
        Weights are divided by it.
    y_size : float
        Largest absolute response of the sample, in units of y_scale: what rounding is relative to.
    x_expected, z_expected : ndarray (p,), (q,) or None
        Value of a column that the basis takes for constant because the sample says so; else NaN.
    """

    x_shift: Array
    x_scale: Array
    unit: Array | None
    z_shift: Array
    z_scale: Array
    z_units: NDArray[np.intp]
    z_unit_values: Array
    x_mix: Array | None
    z_mix: Array | None
    y_shift: float
    y_scale: float
    beta: Array
    excluded: NDArray[np.intp]
    weighted: bool
    weight_scale: float
    y_size: float
    x_expected: Array | None = None
    z_expected: Array | None = None

    def x_map(self, keep: NDArray[np.intp]) -> Array:
        """Matrix taking working coefficients of the kept columns to the user's, (k, k)."""
        A = np.diag(1.0 / self.x_scale)
        if self.unit is not None:
            A -= np.outer(self.unit, self.x_shift / self.x_scale)
        if self.x_mix is not None:
            A = A @ self.x_mix
        return np.asarray(A[np.ix_(keep, keep)])

    def x_log_det(self, keep: NDArray[np.intp]) -> float:
        """Logarithm of the determinant of `x_map`."""
        mix = np.ones(len(self.x_scale)) if self.x_mix is None else np.diag(self.x_mix)
        return float(np.log(mix[keep]).sum() - np.log(self.x_scale[keep]).sum())

    @property
    def unit_columns(self) -> NDArray[np.intp]:
        """Columns of X that make up the constant."""
        return np.flatnonzero(0.0 if self.unit is None else self.unit)

    def involved(self, columns: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the columns of X that have a part in y, or in other columns, of the basis."""
        used = self.beta != 0
        if self.unit is not None:
            used |= self.unit != 0
        if self.x_mix is not None:
            used |= np.count_nonzero(self.x_mix, axis=1) > 1
        return columns[used[columns]]

    def z_map(self) -> Array:
        """Matrix A (q, q) with b = A b_working, so that D = A D_working A'."""
        A = np.diag(1.0 / self.z_scale)
        for k in np.flatnonzero(self.z_units >= 0):
            A[self.z_units[k], k] -= self.z_shift[k] / self.z_scale[k] / self.z_unit_values[k]
        return A if self.z_mix is None else A @ self.z_mix

    def working(
        self,
        batch: Batch,
        order: NDArray[np.int64] | None = None,
        n_jobs: int | None = None,
    ) -> tuple[Array, Array, Array | None]:
        """Rows in the working basis: A = [X r] (n, p + 1), Z (n, q), weights.

        Parameters
        ----------
        order : ndarray of int, optional
            Those of the rows wanted, in that order.
        n_jobs : int, optional
            Threads, as in `lmmfast.lmm`.
        """
        assert batch.y is not None
        A, Z = core.rows_in_basis(
            batch.X,
            batch.Z,
            batch.y,
            batch.offset,
            order,
            self.x_shift,
            1.0 / self.x_scale,
            self.z_shift,
            1.0 / self.z_scale,
            self.x_mix,
            self.z_mix,
            self.y_shift,
            1.0 / self.y_scale,
            self.beta,
            n_threads(n_jobs),
        )
        weights = batch.weights
        if weights is not None:
            weights = as_float(weights if order is None else weights[order]) / self.weight_scale
        return A, Z, weights

    def moved(self, beta: Array) -> Basis:
        """Return the same basis with another working residual."""
        return replace(self, beta=beta)


def choose_basis(
    design: Design, excluded: NDArray[np.intp] | None = None, trust_sample: bool = False
) -> Basis:
    """Choose shifts, scales and working coefficients from a sample of the rows.

    Parameters
    ----------
    design : Design
    excluded : ndarray of int, optional
        Columns of X that other columns determine.
    trust_sample : bool
        Whether a column that is constant in the sample is taken to be so in all rows, which has
        to be seen to later (``x_expected``, ``z_expected``).

    Notes
    -----
    Where numbers of the sample are not finite the basis is a rough one: compression meets the same
    numbers and names them.
    """
    sample = take_sample(design)
    excluded = np.empty(0, dtype=np.intp) if excluded is None else excluded
    unit, x_expected = _unit(design, sample, excluded, trust_sample)
    x_shift, x_scale = _shift_and_scale(sample.X, shift=unit is not None)
    if unit is not None:
        own_shift, own_scale = _shift_and_scale(sample.X, shift=False)
        x_shift = np.where(unit != 0, own_shift, x_shift)
        x_scale = np.where(unit != 0, own_scale, x_scale)
    z_shift, z_scale, z_units, z_unit_values, z_expected = _z_basis(design, sample, trust_sample)
    basis = Basis(
        x_shift=x_shift,
        x_scale=x_scale,
        unit=unit,
        z_shift=z_shift,
        z_scale=z_scale,
        z_units=z_units,
        z_unit_values=z_unit_values,
        x_mix=None,
        z_mix=None,
        y_shift=0.0,
        y_scale=1.0,
        beta=np.zeros(len(sample.X)),
        excluded=excluded,
        weighted=sample.weights is not None,
        weight_scale=1.0 if sample.weights is None else _power_of_two(np.mean(sample.weights)),
        y_size=1.0,
        x_expected=x_expected,
        z_expected=z_expected,
    )
    A, Z, _ = basis.working(sample)
    if np.isfinite(A).all() and np.isfinite(Z).all():
        basis = replace(basis, x_mix=mix_columns(A[:, :-1], excluded), z_mix=_mix_terms(Z, design))
    return suit_response(basis, sample)


def take_sample(design: Design) -> Batch:
    """Rows spread evenly over the data."""
    n = design.n_obs
    rows = np.arange(n) if n <= SAMPLE_ROWS else np.linspace(0, n - 1, SAMPLE_ROWS).astype(np.intp)
    return design.batch(rows).as_float()


def suit_response(basis: Basis, sample: Batch) -> Basis:
    """Choose shift, scale and working residual for the response of a sample; X and Z stay."""
    assert sample.y is not None
    y = sample.y if sample.offset is None else sample.y - sample.offset
    (y_shift,), (y_scale,) = _shift_and_scale([y], shift=basis.unit is not None)
    basis = replace(
        basis,
        y_shift=float(y_shift),
        y_scale=float(y_scale),
        beta=np.zeros(len(sample.X)),
        y_size=float(np.max(np.abs(y))) / float(y_scale),
    )
    A, _, _ = basis.working(sample)
    if not np.isfinite(A).all():
        return basis
    X = A[:, :-1]
    used = np.setdiff1d(np.arange(X.shape[1]), basis.excluded)
    beta = np.zeros(X.shape[1])
    beta[used] = least_squares(X[:, used], A[:, -1], 1e-10)
    spread = float(np.sqrt(np.mean((A[:, -1] - X @ beta) ** 2)))
    unscale = _power_of_two(spread) if spread > 0 else 1.0
    return replace(
        basis,
        beta=beta / unscale,
        y_scale=basis.y_scale * unscale,
        y_size=basis.y_size / unscale,
    )


def _shift_and_scale(columns: list[Array], shift: bool) -> tuple[Array, Array]:
    """Mean (where it is large) and a power of two near the root mean square about it."""
    shifts, scales = np.zeros(len(columns)), np.ones(len(columns))
    for k, x in enumerate(columns):
        largest = float(np.max(np.abs(x)))
        if not (np.isfinite(largest) and largest > 0):
            continue
        unit = _power_of_two(largest)
        scaled = x / unit
        mean = float(np.mean(scaled))
        spread = float(np.sqrt(np.mean((scaled - mean) ** 2)))
        if shift and spread > 0:
            shifts[k] = mean * unit
            scales[k] = _power_of_two(spread) * unit
        else:
            scales[k] = _power_of_two(float(np.sqrt(np.mean(scaled**2)))) * unit
    return shifts, np.clip(scales, 2.0**-1000, 2.0**1000)  # so that 1 / scale is a number too


def _power_of_two(x: float | np.floating) -> float:
    """Power of two next to a positive number: scaling by it rounds nothing."""
    return float(2.0 ** np.clip(np.round(np.log2(x)), -1000, 1000)) if x > 0 else 1.0


def _is_constant(design: Design, sample: Array, kind: str, position: int, trust: bool) -> bool:
    """Whether a column has one value, not zero, in all rows, or in a sample that is trusted."""
    if not np.isfinite(sample[0]) or sample[0] == 0 or not bool(np.all(sample == sample[0])):
        return False
    if trust or sample.strides == (0,):
        return True
    for start in range(0, design.n_obs, CHUNK):
        batch = design.batch(slice(start, min(start + CHUNK, design.n_obs)))
        if not bool(np.all(getattr(batch, kind)[position] == sample[0])):
            return False
    return True


def _unit(
    design: Design, sample: Batch, excluded: NDArray[np.intp], trust: bool
) -> tuple[Array | None, Array | None]:
    """Coefficients u with X u = 1: of a constant column, or of indicators that add up to one.

    And the values (p,) that columns taken for constant are expected to have.
    """
    u = np.zeros(len(sample.X))
    if design.unit is not None:
        u[design.unit] = 1.0
        return u, None
    columns = [(j, x) for j, x in enumerate(sample.X) if j not in excluded]
    for j, x in columns:
        if _is_constant(design, x, "X", j, trust):
            u[j] = 1.0 / x[0]
            return u, np.where(u != 0, x[0], np.nan)
    indicators = [j for j, x in columns if bool(np.all((x == 0) | (x == 1)))]
    if not indicators:
        return None, None
    X = np.column_stack([sample.X[j] for j in indicators])
    u[indicators] = np.round(least_squares(X, np.ones(len(X)), 1e-10), 12)
    unseen = [j for j in indicators if not sample.X[j].any()]
    u[unseen] = 1.0
    return (u if adds_up_to_one(design, u) else None), None


def adds_up_to_one(design: Design, u: Array) -> bool:
    """Whether X u = 1 in every row."""
    for start in range(0, design.n_obs, CHUNK):
        X = design.batch(slice(start, min(start + CHUNK, design.n_obs))).X
        total = sum(u[j] * X[j] for j in np.flatnonzero(u))
        if not np.allclose(total, 1.0, rtol=0, atol=1e-12):
            return False
    return True


def _z_basis(
    design: Design, sample: Batch, trust: bool
) -> tuple[Array, Array, NDArray[np.intp], Array, Array]:
    """Centre within terms that allow it, scale as far as the structure stays the same."""
    q = len(sample.Z)
    shifts, scales = np.zeros(q), np.ones(q)
    expected = np.full(q, np.nan)
    units, unit_values = np.full(q, -1, dtype=np.intp), np.ones(q)
    first = 0
    for term in design.terms:
        here = slice(first, first + len(term.names))
        columns = sample.Z[here]
        unit = None
        if term.structure.invariance == "affine":
            constant = (
                k for k, z in enumerate(columns) if _is_constant(design, z, "Z", first + k, trust)
            )
            unit = next(constant, None)
        shift, scale = _shift_and_scale(columns, shift=unit is not None)
        if unit is not None:
            value = float(columns[unit][0])
            shift[unit], scale[unit] = 0.0, abs(value)
            units[here], unit_values[here] = first + unit, value
            units[first + unit] = -1
            expected[first + unit] = value
        if term.structure.invariance == "common":
            scale[:] = np.max(scale)
        shifts[here], scales[here] = shift, scale
        first += len(term.names)
    return shifts, scales, units, unit_values, expected


def mix_columns(X: Array, excluded: NDArray[np.intp]) -> Array | None:
    """Upper triangular map that makes the columns of a sample nearly orthogonal, if they need it.

    Powers of a year are independent, but so nearly dependent that X'X would have lost what tells
    them apart. Columns that are dependent to rounding, or excluded, stay as they are and have no
    part in others.
    """
    p = X.shape[1]
    size = np.linalg.norm(X, axis=0)
    used = np.setdiff1d(np.flatnonzero(size > 0), excluded)
    rest = np.abs(np.diag(triangle(X[:, used]))) / size[used]
    if len(X) < len(used) or np.min(rest, initial=1.0) > WELL_CONDITIONED:
        return None
    used = used[rest > DEPENDENT]
    R = triangle(X[:, used])
    mix = np.eye(p)
    lengths = [_power_of_two(size[j] / abs(R[k, k])) for k, j in enumerate(used)]
    mix[np.ix_(used, used)] = np.linalg.solve(R, np.diag(np.diag(R) * lengths))
    return np.triu(mix)


def _mix_terms(Z: Array, design: Design) -> Array | None:
    """Mix the columns within unstructured terms, where a change of basis keeps the model."""
    mix, first, needed = np.eye(Z.shape[1]), 0, False
    for term in design.terms:
        here = slice(first, first + len(term.names))
        if term.structure.invariance == "affine":
            own = mix_columns(Z[:, here], np.empty(0, dtype=np.intp))
            if own is not None:
                mix[here, here], needed = own, True
        first += len(term.names)
    return mix if needed else None


def check_scales(design: Design, values: Array, what: str) -> None:
    """Refuse results that left the range of double precision.

    Raises
    ------
    DataError
        If a value is not finite.
    """
    if not np.isfinite(values).all():
        raise DataError(
            f"{what} of {design.y_name!r} exceed the range of double precision: the response or a "
            "column is scaled extremely (about 1e±150); divide it by a power of ten"
        )
