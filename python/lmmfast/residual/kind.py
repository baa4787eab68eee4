"""What differs from one correlation structure to another: how it is parametrised and reported.

`lmmfast.residual.registry` has an instance of `Kind` for each structure of the compiled core.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.structure import Values

#: Correlations are this near to the ends of their range at most, ranges this many median distances
#: short or long.
AT_THE_END = 1e-15
#: At the ends the likelihood is flat in what is searched; here it is not.
OFF_THE_END = 1e-3
#: A fraction or a correlation this near to its end is there.
AT_END = 1e-7
#: A range beyond this many median distances is not seen in the data.
LONG_RANGE = 1e7
#: Shortest range off the end in median distances; spheres that do not touch are not correlated.
SHORTEST = 0.5
SHORTEST_SPHERE = 1.5


@dataclass(frozen=True, eq=False)
class Natural:
    """A reported parameter: its name and the scale on which its interval is made.

    ``scale`` is "variance" (log), "correlation" (atanh), "fraction" (logit), "range" (log) or
    "free" (as it is).
    """

    name: str
    scale: str


@dataclass(frozen=True, eq=False)
class Setting:
    """The data that a structure meets.

    Attributes
    ----------
    columns : str
        Names of its columns.
    label : str or None
        Level of ``by``.
    levels : tuple of str
        Of the visits, if it has any.
    T : int
        Number of positions of a table structure.
    n_psi : int
        Number of its parameters.
    unit : float
        Unit of the distances that the kernels see.
    closest : float
        Smallest distance between neighbouring rows, in that unit.
    report : str
        How the parameter of a distance structure is reported: "rho" or "range".
    """

    columns: str
    label: str | None
    levels: tuple[str, ...]
    T: int
    n_psi: int
    unit: float
    closest: float
    report: str

    def of(self, text: str) -> str:
        """``"visit"``, or ``"visit|TRT"`` with a level of ``by``."""
        return text if self.label is None else f"{text}|{self.label}"

    @property
    def where(self) -> str:
        """Columns and level of ``by`` in a sentence."""
        columns = self.columns or "the residuals"
        return columns if self.label is None else f"{columns} ({self.label})"


class Kind(ABC):
    """A correlation structure.

    Attributes
    ----------
    name : str
        In the registry of the core.
    reports_covariances : bool
        Whether natural parameters are covariances of visits; what `natural` returns are their
        correlations all the same.
    """

    name: str
    reports_covariances = False

    @abstractmethod
    def n_psi(self, T: int, bands: int | None) -> int:
        """Count the parameters over T levels."""

    @abstractmethod
    def natural(self, psi: Values, setting: Setting) -> list[Values]:
        """Natural parameters (n_psi,); complex psi go through."""

    @abstractmethod
    def names(self, setting: Setting) -> list[Natural]:
        """Names of the natural parameters."""

    @abstractmethod
    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:
        """Parameters psi of natural ones, at least a margin from the ends of their range.

        Raises
        ------
        DataError
            They belong to no correlation.
        """

    @abstractmethod
    def at_end(self, psi: Array, setting: Setting) -> str | None:
        """Say in a sentence which end of the range psi lies at; None in the interior."""

    def moderate(self, n_psi: int) -> Array:
        """Parameters well inside their range, which differ, so that nothing is equal by chance."""
        return np.asarray(0.4 * 0.8 ** np.arange(n_psi), dtype=np.float64)


class TableKind(Kind):
    """A correlation matrix over the levels that a row can have: ``definition(psi, T)``."""

    definition: Callable[[Values, int], Values]

    @abstractmethod
    def starts(self, E: Array, bands: int | None) -> list[Array]:
        """Parameters near an empirical correlation matrix E (T, T), the best guess first."""

    def is_singular(self, psi: Array, T: int) -> bool:
        """Whether the matrix has an eigenvalue of zero."""
        return bool(np.linalg.eigvalsh(type(self).definition(psi, T))[0] < AT_END)


@dataclass(frozen=True)
class DistanceKind(Kind):
    """A function of the distance of two rows with a range exp(psi): ``definition(psi, d)``.

    Attributes
    ----------
    shortest : float
        Shortest range off the end, in median distances.
    has_kinks : bool
        Whether its slope jumps where the range passes a distance: the likelihood has many maxima.
    """

    name: str
    definition: Callable[[Values, Array], Values]
    shortest: float = SHORTEST
    has_kinks: bool = False

    def n_psi(self, T: int, bands: int | None) -> int:  # noqa: D102
        return 1

    def natural(self, psi: Values, setting: Setting) -> list[Values]:  # noqa: D102
        reach = np.exp(psi[0]) * setting.unit
        return [np.exp(-1 / reach) if setting.report == "rho" else reach]

    def names(self, setting: Setting) -> list[Natural]:  # noqa: D102
        text = setting.of(setting.columns)
        if setting.report == "rho":
            return [Natural(f"rho({text})", "fraction")]
        return [Natural(f"range({text})", "range")]

    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:  # noqa: D102
        reach = natural
        if setting.report == "rho":
            reach = -1 / np.log(np.clip(natural, 1e-300, 1 - 1e-15))
        shortest = self.shortest if margin == OFF_THE_END else margin
        return np.log(np.clip(reach / setting.unit, shortest, 1 / margin))

    def at_end(self, psi: Array, setting: Setting) -> str | None:  # noqa: D102
        if np.exp(psi[0]) > LONG_RANGE:
            return f"the range of the correlation over {setting.where} has no upper limit"
        if self.definition(psi, np.array(setting.closest)) < AT_END:
            return f"the correlation over {setting.where} is zero"
        return None

    def moderate(self, n_psi: int) -> Array:  # noqa: D102
        return np.array([np.log(3.0)])  # of the median distance


def artanh(rho: Array, margin: float) -> Array:
    """Inverse hyperbolic tangents of correlations, kept a margin from -1 and 1."""
    return np.arctanh(np.clip(rho, -(1 - margin), 1 - margin))


def is_one(psi: Array) -> bool:
    """Whether some correlation tanh(psi) is 1 or -1."""
    return bool((np.abs(np.tanh(psi)) > 1 - AT_END).any())
