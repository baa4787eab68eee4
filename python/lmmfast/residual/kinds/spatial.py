"""Correlations that fall with the distance of two rows, in time or in one to three coordinates."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.signatures import written
from lmmfast.residual.structure import Correlation, ResidualStructure, Source, Values, own_variance


def exponential(psi: Values, d: Array) -> Values:
    """exp(-d / l), l = exp(psi)."""
    return np.exp(-d / np.exp(psi[0]))


def gaussian(psi: Values, d: Array) -> Values:
    """exp(-(d / l)^2), l = exp(psi)."""
    return np.exp(-((d / np.exp(psi[0])) ** 2))


def matern32(psi: Values, d: Array) -> Values:
    """(1 + a) exp(-a), a = sqrt(3) d / l, l = exp(psi)."""
    a = np.sqrt(3.0) * d / np.exp(psi[0])
    return (1 + a) * np.exp(-a)


def matern52(psi: Values, d: Array) -> Values:
    """(1 + a + a^2 / 3) exp(-a), a = sqrt(5) d / l, l = exp(psi)."""
    a = np.sqrt(5.0) * d / np.exp(psi[0])
    return (1 + a + a**2 / 3) * np.exp(-a)


def spherical(psi: Values, d: Array) -> Values:
    """1 - 1.5 d / l + 0.5 (d / l)^3 for d < l = exp(psi), else 0."""
    a = d / np.exp(psi[0])
    return np.where(np.real(a) < 1, 1 - 1.5 * a + 0.5 * a**3, 0.0)


class OU(ResidualStructure):
    """Ornstein-Uhlenbeck process, the AR(1) of continuous time: theta rho^|t - t'| (corCAR1).

    Parameters
    ----------
    time : str or array (n,)
        Numbers in any unit, or dates (then rho is that of a day).
    nugget : bool
        Measurement error on top of the process.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, time: Source, *, nugget: bool = False, by: Source | None = None) -> None:
        super().__init__(
            Correlation("exponential", "time", (time,), by, bool(nugget), label="OU"),
            own_variance(by),
            written("OU", [time], nugget=nugget, by=by),
        )


class SpatialStructure(ResidualStructure):
    """Correlation that falls with the Euclidean distance in one to three coordinates."""

    _kind: str  # in the registry
    _report = "range"

    def __init__(self, *coords: Source, nugget: bool = False, by: Source | None = None) -> None:
        if not 1 <= len(coords) <= 3:
            raise ValueError(f"{type(self).__name__} needs one to three coordinates")
        super().__init__(
            Correlation(
                self._kind,
                "coordinates",
                tuple(coords),
                by,
                bool(nugget),
                label="Spatial",
                report=self._report,
            ),
            own_variance(by),
            written(type(self).__name__, coords, nugget=nugget, by=by),
        )


class SpatialExponential(SpatialStructure):
    """Correlation exp(-d / range) of the distance d (SAS SP(EXP), nlme's corExp).

    Parameters
    ----------
    *coords : str or array (n,)
        One to three coordinates.
    nugget : bool
        Uncorrelated variance on top.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    _kind = "exponential"


class SpatialGaussian(SpatialStructure):
    """Correlation exp(-(d / range)^2) (SAS SP(GAU), nlme's corGaus).

    Parameters
    ----------
    *coords, nugget, by
        As in `SpatialExponential`.
    """

    _kind = "gaussian"


class SpatialSpherical(SpatialStructure):
    """Correlation 1 - 1.5 d / range + 0.5 (d / range)^3 up to the range (SP(SPH), corSpher).

    Parameters
    ----------
    *coords, nugget, by
        As in `SpatialExponential`.
    """

    _kind = "spherical"


class SpatialPower(SpatialStructure):
    """Correlation rho^d (SAS SP(POW)): `SpatialExponential` with rho = exp(-1 / range).

    Parameters
    ----------
    *coords, nugget, by
        As in `SpatialExponential`.
    """

    _kind = "exponential"
    _report = "rho"


class SpatialMatern(ResidualStructure):
    """Matérn correlation of smoothness nu = 1/2, 3/2 or 5/2, in a = sqrt(2 nu) d / range.

    Parameters
    ----------
    *coords : str or array (n,)
        One to three coordinates.
    nu : {0.5, 1.5, 2.5}
        1/2 is `SpatialExponential`.
    nugget : bool
        Uncorrelated variance on top.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters.

    References
    ----------
    Rasmussen, C. E. and Williams, C. K. I. (2006). Gaussian Processes for Machine Learning,
    equations 4.14 to 4.17.
    """

    def __init__(
        self, *coords: Source, nu: float = 1.5, nugget: bool = False, by: Source | None = None
    ) -> None:
        kinds = {0.5: "exponential", 1.5: "matern32", 2.5: "matern52"}
        if nu not in kinds:
            raise ValueError(f"nu={nu!r}: choose 0.5, 1.5 or 2.5")
        if not 1 <= len(coords) <= 3:
            raise ValueError("SpatialMatern needs one to three coordinates")
        super().__init__(
            Correlation(
                kinds[nu],
                "coordinates",
                tuple(coords),
                by,
                bool(nugget),
                label="Spatial",
                report="range",
            ),
            own_variance(by),
            written("SpatialMatern", coords, nu=nu, nugget=nugget, by=by),
        )
