"""The numbers of a fit that are looked at in replicates: coefficients, variances, correlations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.batch.many_result import ManyFits
from lmmfast.errors import DataError

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Name, row and column in D: on the diagonal of a standard deviation, beside it of a correlation.
Place = tuple[str, int, int]


def effect_places(fit: LMMResult) -> list[Place]:
    """Standard deviations, then correlations, by term: as `LMMResult.conf_int_theta` has them."""
    covariance, D = fit._covariance, fit._estimates.D
    row, column = covariance.pairs
    moves = np.flatnonzero(np.abs(covariance.natural_jacobian(D)).sum(axis=0))
    free = {(int(row[k]), int(column[k])) for k in moves}
    found: list[Place] = []
    for term, own in zip(fit.terms, covariance.columns, strict=True):
        places = range(own.start, own.stop)
        name = dict(zip(places, term.names, strict=True))
        found += [(f"sd({name[a]}|{term.group})", a, a) for a in places]
        found += [
            (f"cor({name[a]},{name[b]}|{term.group})", a, b)
            for a in places
            for b in places
            if a < b and {(a, b), (b, a)} & free
        ]
    return found


def effect_values(D: Array, places: list[Place]) -> Array:
    """Standard deviations and correlations (B, k) of matrices D (B, q, q)."""
    with np.errstate(all="ignore"):
        columns = [
            np.sqrt(D[:, a, a]) if a == b else D[:, a, b] / np.sqrt(D[:, a, a] * D[:, b, b])
            for _, a, b in places
        ]
    return np.reshape(np.array(columns).T, (len(D), len(places)))


class Numbers:
    """What is taken of each replicate of a fit.

    Parameters
    ----------
    fit : LMMResult
    statistic : callable, optional
        Of a fit; gives a number, a sequence, a mapping or a Series. Default: coefficients,
        standard deviations and correlations of random effects, and ``theta``.
    """

    def __init__(self, fit: LMMResult, statistic: Callable[[Any], Any] | None) -> None:
        self.statistic = statistic
        # Heterogeneous compound symmetry has correlations in theta.
        self._places = [place for place in effect_places(fit) if place[0] not in fit.theta_names]
        if statistic is None:
            self.names = [*fit.x_names, *(name for name, _, _ in self._places), *fit.theta_names]
            self.estimate = self.of_fit(fit)
        else:
            self.names, self.estimate = _read(statistic(fit))

    def of_fit(self, fit: Any) -> Array:
        """Numbers (k,) of one fit."""
        if self.statistic is None:
            D = np.asarray(fit.cov_re, dtype=np.float64)[None]
            own = effect_values(D, self._places)[0]
            return np.concatenate([np.asarray(fit.params), own, np.asarray(fit.theta)])
        names, values = _read(self.statistic(fit))
        if names != self.names:
            raise DataError(
                f"the statistic gives {len(names)} numbers {names[:3]} of a replicate and "
                f"{len(self.names)} numbers {self.names[:3]} of the fit: they must be the same ones"
            )
        return values

    def of_fits(self, fits: ManyFits) -> Array:
        """Numbers (B, k) of replicates from moments; NaN where there is no fit.

        Raises
        ------
        DataError
            The statistic asks for what takes rows.
        """
        if self.statistic is None:
            return np.column_stack([fits.beta, effect_values(fits.D, self._places), fits.theta])
        out = np.full((len(fits), len(self.names)), np.nan)
        for k in np.flatnonzero(fits.converged):
            try:
                out[k] = self.of_fit(fits[int(k)])
            except AttributeError as error:
                raise DataError(
                    f"the statistic asks for what a replicate without rows has not ({error}): pass "
                    "method='rows'"
                ) from error
        return out


def _read(value: Any) -> tuple[list[str], Array]:
    """Names and numbers of what a statistic gave."""
    import pandas as pd

    if isinstance(value, pd.Series):
        names, numbers = [str(name) for name in value.index], value.to_numpy()
    elif isinstance(value, Mapping):
        names, numbers = [str(name) for name in value], np.array(list(value.values()))
    else:
        numbers = np.asarray(value)
        many = [f"statistic[{k}]" for k in range(numbers.size)]
        names, numbers = (many if numbers.ndim else ["statistic"]), numbers.reshape(-1)
    try:
        return names, np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"the statistic must give numbers, by name or in a sequence, and gave {value!r}"
        ) from None
