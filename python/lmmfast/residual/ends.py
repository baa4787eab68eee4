"""The ends of ranges that a search is on its way to, and the ways there.

Working parameters of correlations and variances lie between minus and plus infinity, where the
correlation is 1 or -1 and the variance zero. Near such an end R may be singular, so a search cannot
get there; but it can be put next to it (docs/residual.md, section 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual import definitions
from lmmfast.residual.edges import LONG_RANGE, ZERO_SD
from lmmfast.residual.layout import ResidualParameters, Stratum, VariancePart

#: 1 - |rho| next to the end, where R has digits left, and from where on a search is on its way.
NEXT_TO_THE_END, ON_THE_WAY = 1e-8, 1e-3
#: Standard deviations relative to the largest: as far as this they are taken, and from here on.
LEAST_SD, SMALL_SD = 0.1 * ZERO_SD, 1e-2
#: A range of this many median distances is on its way to infinity.
FAR = 100.0


@dataclass(frozen=True, eq=False)
class End:
    """An end of the range of one parameter.

    The way there is measured in units: over one, what vanishes falls by a factor e or e^2.

    Attributes
    ----------
    held : int
        The working parameter that stays where it is put.
    way : ndarray (n_params,)
        By how much working parameters change over a unit; where they grow, which do.
    units : float
        From where the parameters are to next to the end; negative where they are past that point,
        and R has no digits left.
    text : str
        "a correlation over v goes to 1".
    grows : bool
        Whether parameters grow by a factor e over a unit.
    is_variance : bool
        Whether what vanishes is a variance, and not 1 - |rho|.
    shrinks : bool
        Whether sigma, to which D is relative, falls by a factor e over a unit.
    """

    held: int
    way: Array
    units: float
    text: str
    grows: bool = False
    is_variance: bool = False
    shrinks: bool = False

    @property
    def past(self) -> bool:
        """Whether the parameters are past the point next to the end, where R has digits left."""
        return self.units < 0 and not self.is_variance

    def moved(self, kappa: Array, units: float) -> Array:
        """Working parameters some units nearer to the end."""
        if self.grows:
            return np.asarray(kappa * np.exp(units * (self.way != 0)))
        return np.asarray(kappa + units * self.way)


def ends(parameters: ResidualParameters, kappa: Array) -> list[End]:
    """Ends that working parameters are on their way to, or past."""
    out = [end for part in parameters.variances for end in _of_variances(part, kappa)]
    for stratum in parameters.strata:
        out += _of_correlations(parameters, stratum, kappa)
    return out


def _of_variances(part: VariancePart, kappa: Array) -> Iterator[End]:
    if part.kind != "levels":
        return
    log_sds = np.append(0.0, kappa[part.params])
    highest = float(log_sds.max())
    for k in np.flatnonzero(log_sds < highest + np.log(SMALL_SD)):
        way, units = np.zeros(len(kappa)), float(log_sds[k] - highest - np.log(LEAST_SD))
        if k:
            held = part.params.start + int(k) - 1
            way[held] = -1.0
        else:  # the others are relative to this one
            held = part.params.start + int(np.argmax(kappa[part.params]))
            way[part.params] = 1.0
        text = f"the residual variance of {part.labels[k]} goes to zero"
        yield End(held, way, units, text, is_variance=True, shrinks=not k)


def _of_correlations(parameters: ResidualParameters, stratum: Stratum, kappa: Array) -> list[End]:
    correlation = parameters.correlation
    if correlation is None or correlation.custom is not None:
        return []
    kind, columns = correlation.kind, ",".join(correlation.columns) or "the residuals"
    where = columns + ("" if stratum.label is None else f" ({stratum.label})")
    first, psi = stratum.psi.start, kappa[stratum.psi]
    if kind == "unstructured":
        return _of_rows(parameters, first, kappa, where)
    if kind in ("ar1", "toeplitz", "antedependence"):
        last, near = np.arctanh(1 - NEXT_TO_THE_END), np.arctanh(1 - ON_THE_WAY)
        return [
            _one(kappa, first + k, last, f"a correlation over {where} goes to {_sign(psi[k])}")
            for k in np.flatnonzero(np.abs(psi) > near)
        ]
    if kind == "compound_symmetry":
        last, near = -np.log(NEXT_TO_THE_END), -np.log(ON_THE_WAY)
        end = "1" if psi[0] > 0 else f"-1/{parameters.T - 1}"
        text = f"the common correlation of {where} goes to {end}"
        return [_one(kappa, first, last, text)] if abs(psi[0]) > near else []
    if kind in definitions.DISTANCES and np.exp(psi[0]) > FAR:
        text = f"the range of the correlation over {where} goes to infinity"
        return [_one(kappa, first, np.log(LONG_RANGE) + 0.1, text)]
    return []


def _one(kappa: Array, at: int, last: float, text: str) -> End:
    """The end of a parameter by itself: ``last`` with its sign."""
    way = np.zeros(len(kappa))
    way[at] = np.sign(kappa[at])
    return End(at, way, float(last - abs(kappa[at])), text)


def _of_rows(parameters: ResidualParameters, first: int, kappa: Array, where: str) -> list[End]:
    """Rows of a unit lower triangular factor, before they are scaled, that grow."""
    out = []
    for row in range(1, parameters.T):
        begin = first + row * (row - 1) // 2
        at = slice(begin, begin + row)
        length = float(np.linalg.norm(kappa[at]))
        if length**2 * ON_THE_WAY < 1:
            continue
        way = np.zeros(len(kappa))
        way[at] = 1.0
        held = begin + int(np.argmax(np.abs(kappa[at])))
        units = float(-0.5 * np.log(NEXT_TO_THE_END) - np.log(length))
        text = f"the correlation matrix of {where} becomes singular"
        out.append(End(held, way, units, text, grows=True))
    return out


def _sign(value: float) -> str:
    return "1" if value > 0 else "-1"
