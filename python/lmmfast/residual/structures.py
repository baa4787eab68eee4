"""What users write: covariance structures of the residuals and their products.

A structure is a correlation (at most one) times any number of variance models. Each public class
only names its parts; `lmmfast.residual.model` makes numbers of them for given data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmfast.errors import UnsupportedModelError
from lmmfast.residual.signatures import columns_first, written

#: A column: its name in the data, or its values (n,).
Source = Any


@dataclass(frozen=True, eq=False)
class Correlation:
    """The correlation part of a structure.

    Attributes
    ----------
    kind : str
        Name in the registry of the core, or "custom".
    role : str
        What the columns are: "levels" (visits), "positions" (visits or whole numbers), "time",
        "coordinates", or "none".
    columns : tuple
        Names or arrays.
    by : str, array or None
        Column whose levels have parameters of their own.
    nugget : bool
        Whether part of the variance is uncorrelated measurement error.
    bands : int or None
        Number of lags of a banded Toeplitz matrix.
    label : str
        Name of the process, for its variance.
    report : str
        How the parameter of a distance structure is reported: "rho" or "range".
    """

    kind: str
    role: str = "none"
    columns: tuple[Source, ...] = ()
    by: Source | None = None
    nugget: bool = False
    bands: int | None = None
    label: str = "Residual"
    report: str = "rho"
    custom: CustomFunction | None = None


@dataclass(frozen=True, eq=False)
class Variance:
    """One variance model: "levels" (a variance each), "power" or "exponential" of a covariate."""

    kind: str
    columns: tuple[Source, ...]
    by: Source | None = None


@dataclass(frozen=True, eq=False)
class CustomFunction:
    """A user's own correlation; see `CustomCorrelation`."""

    function: Callable[[Any, Any], tuple[Any, Any]]
    names: tuple[str, ...]
    start: tuple[float, ...]


class ResidualStructure:
    """A covariance structure of the residuals; ``*`` multiplies a correlation by variance models.

    Attributes
    ----------
    correlation : Correlation or None
    variances : tuple of Variance

    Examples
    --------
    >>> import lmmfast as lf
    >>> lf.AR1("visit") * lf.ByGroup("sex")
    AR1('visit') * ByGroup('sex')
    """

    def __init__(
        self,
        correlation: Correlation | None,
        variances: Sequence[Variance],
        text: str,
    ) -> None:
        self.correlation = correlation
        self.variances = tuple(variances)
        self.text = text

    def __init_subclass__(cls) -> None:
        if "__init__" in cls.__dict__:
            type.__setattr__(cls, "__init__", columns_first(cls.__dict__["__init__"]))

    def __mul__(self, other: Any) -> ResidualStructure:
        """Multiply: correlations by variance models, as nlme's corStruct and varFunc."""
        if not isinstance(other, ResidualStructure):
            return NotImplemented
        if self.correlation is not None and other.correlation is not None:
            raise UnsupportedModelError(
                f"{self} * {other}: both are correlations; a product has at most one"
            )
        # A correlation may report the variances that came with it: they stand first.
        first, second = (other, self) if other.correlation is not None else (self, other)
        return ResidualStructure(
            first.correlation, first.variances + second.variances, f"{self.text} * {other.text}"
        )

    @property
    def is_independent(self) -> bool:
        """Whether it is sigma2 I."""
        return self.correlation is None and not self.variances

    def __repr__(self) -> str:
        """Return the structure as written."""
        return self.text


def _own_variance(by: Source | None) -> tuple[Variance, ...]:
    return () if by is None else (Variance("levels", (by,)),)


def _level_variances(col: Source, by: Source | None) -> tuple[Variance, ...]:
    return (Variance("levels", (col,) if by is None else (by, col)),)


class Independent(ResidualStructure):
    """Independent residuals of one variance: R = sigma2 I (SAS TYPE=VC). The default."""

    def __init__(self) -> None:
        super().__init__(None, (), "Independent()")


class ByGroup(ResidualStructure):
    """A variance for each level of a column (nlme's varIdent).

    Parameters
    ----------
    col : str or array (n,)
    """

    def __init__(self, col: Source) -> None:
        super().__init__(None, (Variance("levels", (col,)),), written("ByGroup", [col]))


class VarPower(ResidualStructure):
    """Standard deviation sigma |v|^delta (nlme's varPower).

    Parameters
    ----------
    col : str or array (n,)
        Covariate v, not zero.
    by : str or array (n,), optional
        Column whose levels have a delta each.
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(None, (Variance("power", (col,), by),), written("VarPower", [col], by=by))


class VarExp(ResidualStructure):
    """Standard deviation sigma exp(delta v) (nlme's varExp).

    Parameters
    ----------
    col : str or array (n,)
        Covariate v.
    by : str or array (n,), optional
        Column whose levels have a delta each.
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            None, (Variance("exponential", (col,), by),), written("VarExp", [col], by=by)
        )


class CompoundSymmetry(ResidualStructure):
    """One correlation between all rows of a cluster, down to -1/(n - 1) (SAS TYPE=CS).

    Parameters
    ----------
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("compound_symmetry", by=by),
            _own_variance(by),
            written("CompoundSymmetry", [], by=by),
        )


class HeterogeneousCS(ResidualStructure):
    """Compound symmetry with a variance for each visit (SAS TYPE=CSH).

    Parameters
    ----------
    col : str or array (n,)
        Visit.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("compound_symmetry", "levels", (col,), by),
            _level_variances(col, by),
            written("HeterogeneousCS", [col], by=by),
        )


class AR1(ResidualStructure):
    """First-order autoregression: correlation rho^lag, rho of either sign (SAS TYPE=AR(1)).

    Parameters
    ----------
    col : str or array (n,)
        Visit: whole numbers, or levels in their order. Visits that are missing keep their place.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("ar1", "positions", (col,), by),
            _own_variance(by),
            written("AR1", [col], by=by),
        )


class HeterogeneousAR1(ResidualStructure):
    """First-order autoregression with a variance for each visit (SAS TYPE=ARH(1)).

    Parameters
    ----------
    col, by
        As in `AR1`.
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("ar1", "positions", (col,), by),
            _level_variances(col, by),
            written("HeterogeneousAR1", [col], by=by),
        )


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
            _own_variance(by),
            written("OU", [time], nugget=nugget, by=by),
        )


class Toeplitz(ResidualStructure):
    """A correlation for each lag between visits (SAS TYPE=TOEP, or TOEP(bands + 1)).

    Parameters
    ----------
    col : str or array (n,)
        Visit: levels in their order. Visits that are missing keep their place.
    bands : int, optional
        Number of lags with a correlation; zero beyond.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, bands: int | None = None, by: Source | None = None) -> None:
        super().__init__(
            _toeplitz(col, bands, by),
            _own_variance(by),
            written("Toeplitz", [col], bands=bands, by=by),
        )


class HeterogeneousToeplitz(ResidualStructure):
    """`Toeplitz` with a variance for each visit (SAS TYPE=TOEPH).

    Parameters
    ----------
    col, bands, by
        As in `Toeplitz`.
    """

    def __init__(self, col: Source, *, bands: int | None = None, by: Source | None = None) -> None:
        super().__init__(
            _toeplitz(col, bands, by),
            _level_variances(col, by),
            written("HeterogeneousToeplitz", [col], bands=bands, by=by),
        )


def _toeplitz(col: Source, bands: int | None, by: Source | None) -> Correlation:
    if bands is not None and (not isinstance(bands, int | np.integer) or bands < 1):
        raise ValueError(f"bands={bands!r}: give the number of lags, 1 or more")
    kind = "toeplitz" if bands is None else "banded_toeplitz"
    return Correlation(kind, "levels", (col,), by, bands=None if bands is None else int(bands))


class Antedependence(ResidualStructure):
    """First-order ante-dependence: a correlation for each pair of neighbouring visits.

    Parameters
    ----------
    col : str or array (n,)
        Visit: levels in their order.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("antedependence", "levels", (col,), by),
            _own_variance(by),
            written("Antedependence", [col], by=by),
        )


class HeterogeneousAntedependence(ResidualStructure):
    """First-order ante-dependence with a variance for each visit (SAS TYPE=ANTE(1)).

    Parameters
    ----------
    col, by
        As in `Antedependence`.
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("antedependence", "levels", (col,), by),
            _level_variances(col, by),
            written("HeterogeneousAntedependence", [col], by=by),
        )


class Unstructured(ResidualStructure):
    """Any covariance matrix of the visits (SAS TYPE=UN, nlme's corSymm times varIdent).

    Parameters
    ----------
    col : str or array (n,)
        Visit.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own matrix (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("unstructured", "levels", (col,), by),
            _level_variances(col, by),
            written("Unstructured", [col], by=by),
        )


class _Spatial(ResidualStructure):
    """Correlation that falls with the Euclidean distance in one to three coordinates."""

    _kind: str
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
            _own_variance(by),
            written(type(self).__name__, coords, nugget=nugget, by=by),
        )


class SpatialExponential(_Spatial):
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


class SpatialGaussian(_Spatial):
    """Correlation exp(-(d / range)^2) (SAS SP(GAU), nlme's corGaus).

    Parameters
    ----------
    *coords, nugget, by
        As in `SpatialExponential`.
    """

    _kind = "gaussian"


class SpatialSpherical(_Spatial):
    """Correlation 1 - 1.5 d / range + 0.5 (d / range)^3 up to the range (SP(SPH), corSpher).

    Parameters
    ----------
    *coords, nugget, by
        As in `SpatialExponential`.
    """

    _kind = "spherical"


class SpatialPower(_Spatial):
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
            _own_variance(by),
            written("SpatialMatern", coords, nu=nu, nugget=nugget, by=by),
        )


class CustomCorrelation(ResidualStructure):
    """A correlation of your own, evaluated once for each distinct pattern of its columns.

    Parameters
    ----------
    *cols : str or array (n,)
        Columns of numbers that the correlation depends on.
    function : callable
        ``function(psi, values)`` with parameters psi (K,), free of bounds, and values (n_i, k)
        returns the correlation matrix (n_i, n_i) and its derivatives (K, n_i, n_i).
    start : sequence of float
        Where the search begins; its length is K.
    names : sequence of str, optional
        Names of the parameters, which are reported as they are.
    nugget : bool
        Uncorrelated variance on top.

    Examples
    --------
    >>> import numpy as np, lmmfast as lf
    >>> def cauchy(psi, values):
    ...     d = np.abs(values - values.T)
    ...     a = (d / np.exp(psi[0])) ** 2
    ...     return 1 / (1 + a), (2 * a / (1 + a) ** 2)[None]
    >>> lf.CustomCorrelation("t", function=cauchy, start=[0.0], names=["log_range"])
    CustomCorrelation('t', function=cauchy, start=[0.0], names=['log_range'])
    """

    def __init__(
        self,
        *cols: Source,
        function: Callable[[Any, Any], tuple[Any, Any]],
        start: Sequence[float],
        names: Sequence[str] | None = None,
        nugget: bool = False,
    ) -> None:
        first = tuple(float(value) for value in start)
        chosen = tuple(names) if names is not None else tuple(f"psi{k}" for k in range(len(first)))
        if not cols or not first:
            raise ValueError("CustomCorrelation needs at least one column and one parameter")
        if len(chosen) != len(first):
            raise ValueError(f"{len(chosen)} names for {len(first)} parameters")
        super().__init__(
            Correlation(
                "custom",
                "coordinates",
                tuple(cols),
                nugget=bool(nugget),
                label="Custom",
                custom=CustomFunction(function, chosen, first),
            ),
            (),
            written(
                "CustomCorrelation",
                cols,
                function=function,
                start=list(first),
                names=None if names is None else list(chosen),
                nugget=nugget,
            ),
        )
