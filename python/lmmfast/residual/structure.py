"""What a residual structure is made of: at most one correlation times variance models.

Each public class (`lmmfast.residual.kinds`) only names its parts; `lmmfast.residual.model` makes
numbers of them for given data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmmfast.errors import UnsupportedModelError
from lmmfast.residual.signatures import columns_first

#: Real or complex numbers or arrays: complex steps go through.
Values = Any
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


def own_variance(by: Source | None) -> tuple[Variance, ...]:
    """Return the variance model of a structure with ``by``: a variance for each of its levels."""
    return () if by is None else (Variance("levels", (by,)),)


def level_variances(col: Source, by: Source | None) -> tuple[Variance, ...]:
    """Return the variance model of a heterogeneous structure: a variance for each visit."""
    return (Variance("levels", (col,) if by is None else (by, col)),)
