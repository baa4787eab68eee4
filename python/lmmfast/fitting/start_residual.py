"""Where the search for the residuals' parameters begins: moments of rough residuals.

Standard deviations come from squared residuals (a gamma regression), visit structures from the
empirical correlations of the visits, serial ones from the correlation of neighbouring rows.
"""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual import registry
from lmmfast.residual.kind import DistanceKind, TableKind
from lmmfast.residual.kinds.toeplitz import MAX_START_CORRELATION
from lmmfast.residual.model import ResidualModel

#: Rows looked at: moments need no more.
ROWS = 1_000_000
#: Visits of clusters looked at.
ENTRIES = 50_000_000
#: Ranges that a search for a correlation with kinks begins from.
RANGES = 40
#: Neighbouring rows whose correlation is looked at.
PAIRS = 20_000


def start_params(model: ResidualModel, r: Array, has_random: bool) -> list[Array]:
    """Search parameters to begin from, the best guess first.

    Parameters
    ----------
    r : ndarray (n,)
        Residuals of ordinary least squares, weights applied, rows in the order of the model.
    has_random : bool
        Whether random effects take their part of what is correlated.
    """
    parameters = model.parameters
    n = int(model.ptr[np.searchsorted(model.ptr, ROWS, side="right") - 1]) or len(r)
    r = r[:n]
    G = None if model.G is None else model.G[:n]
    variances = _log_sds(r, G)
    u = r if G is None else r * np.exp(-G @ variances)
    rms = np.sqrt(np.mean(u**2))
    u = u / rms if rms > 0 else u
    correlation = parameters.correlation
    if correlation is None:
        return [variances]
    candidates = _psi_candidates(model, u, has_random)
    fractions = (0.2, 0.6) if correlation.nugget else (0.0,)
    starts = []
    for psi in candidates:
        for nu in fractions:
            kappa = np.zeros(parameters.n_params)
            kappa[: len(variances)] = variances
            for stratum in parameters.strata:
                kappa[stratum.psi] = psi
                if stratum.nu is not None:
                    kappa[stratum.nu] = nu
            starts.append(parameters.phi(kappa))
    return starts


def inside(model: ResidualModel) -> Array:
    """Search parameters well inside their ranges: moderate correlations, equal variances."""
    parameters = model.parameters
    kappa = np.zeros(parameters.n_params)
    for stratum in parameters.strata:
        kappa[stratum.psi] = _moderate(model, stratum.psi.stop - stratum.psi.start)
        if stratum.nu is not None:
            kappa[stratum.nu] = 0.3
    return parameters.phi(kappa)


def _moderate(model: ResidualModel, n_psi: int) -> Array:
    correlation = model.parameters.correlation
    if correlation is None:
        return np.empty(0)
    if correlation.custom is not None:
        return np.array(correlation.custom.start)
    return registry.KINDS[correlation.kind].moderate(n_psi)


def _log_sds(r: Array, G: Array | None) -> Array:
    """Coefficients of log s on G by scoring in the gamma model of squared residuals."""
    if G is None:
        return np.empty(0)
    X = np.column_stack([np.ones(len(G)), G])
    inverse = np.linalg.pinv(X.T @ X)
    floor = 1e-4 * np.mean(r**2)
    beta = inverse @ (X.T @ (0.5 * np.log(np.maximum(r**2, floor if floor > 0 else 1.0))))
    for _ in range(5):
        excess = r**2 * np.exp(-2 * np.clip(X @ beta, -300, 300)) - 1
        step = inverse @ (X.T @ (0.5 * excess))
        if not np.isfinite(step).all():
            break
        beta += np.clip(step, -1.0, 1.0)
    return np.asarray(beta[1:])


def _psi_candidates(model: ResidualModel, u: Array, has_random: bool) -> list[Array]:
    correlation = model.parameters.correlation
    assert correlation is not None
    if correlation.custom is not None:
        return [np.array(correlation.custom.start)]
    share = 0.5 if has_random else 1.0
    kind = registry.KINDS[correlation.kind]
    if not isinstance(kind, TableKind):
        return _distance_candidates(model, u, share)
    return kind.starts(share * _empirical(model, u), correlation.bands)


def _distance_candidates(model: ResidualModel, u: Array, share: float) -> list[Array]:
    """From the correlation of neighbours; further candidates are shorter and longer ranges."""
    correlation = model.parameters.correlation
    assert correlation is not None and model.coords is not None
    u = u[: PAIRS + 1]
    ends = model.ptr[1:-1][model.ptr[1:-1] < len(u)]
    same = np.ones(max(len(u) - 1, 0), dtype=bool)
    same[ends - 1] = False
    left = np.flatnonzero(same)
    d = np.sqrt(((model.coords[left + 1] - model.coords[left]) ** 2).sum(axis=1))
    rho = float(
        np.clip(
            share * np.mean(u[left] * u[left + 1]), -MAX_START_CORRELATION, MAX_START_CORRELATION
        )
    )
    lag = float(np.median(d)) or 1.0
    if correlation.kind == "ar1":
        first = np.arctanh(np.sign(rho) * abs(rho) ** (1 / max(lag, 1.0)))
        return [np.array([first]), np.array([0.5]), np.array([-0.5])]
    kind = registry.KINDS[correlation.kind]
    if isinstance(kind, DistanceKind) and kind.has_kinks:
        return _many_ranges(model)
    reach = np.log(lag / -np.log(np.clip(rho, 0.05, MAX_START_CORRELATION)))
    return [np.array([value]) for value in (reach, reach + 1.5, reach - 1.0)]


def _many_ranges(model: ResidualModel) -> list[Array]:
    """Ranges from the closest rows to far beyond the longest cluster, on one coordinate.

    A correlation with a kink has a likelihood of many maxima, which neighbours say little about.
    """
    coords, closest = model.coords, model.parameters.closest
    assert coords is not None
    longest = float(np.max(coords[model.ptr[1:] - 1] - coords[model.ptr[:-1]]))
    reaches = np.geomspace(closest, 10 * max(longest, closest), RANGES)
    return [np.array([value]) for value in np.log(reaches)]


def _empirical(model: ResidualModel, u: Array) -> Array:
    """Correlations of the levels over the clusters that have both, (T, T)."""
    T = model.parameters.T
    positions = model.positions
    assert positions is not None
    m = min(int(np.searchsorted(model.ptr, len(u))), max(ENTRIES // T, 1))
    u = u[: model.ptr[m]]
    cluster = np.repeat(np.arange(m), np.diff(model.ptr[: m + 1]))
    wide, seen = np.zeros((m, T)), np.zeros((m, T))
    wide[cluster, positions[: len(u)]] = u
    seen[cluster, positions[: len(u)]] = 1.0
    counts = seen.T @ seen
    size = np.sqrt(np.maximum((wide**2).sum(axis=0) / np.maximum(np.diag(counts), 1), 1e-300))
    E = (wide.T @ wide) / np.maximum(counts, 1) / np.outer(size, size)
    E = np.clip(E, -MAX_START_CORRELATION, MAX_START_CORRELATION)
    np.fill_diagonal(E, 1.0)
    return E
