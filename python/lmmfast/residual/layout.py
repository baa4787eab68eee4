"""Where the parameters of a residual structure stand, what they are called, and natural values.

*Working* parameters kappa are those of the kernels: log-linear standard deviations, unconstrained
correlation parameters psi, nugget fractions nu. *Natural* ones are reported: variances,
correlations, ranges. With sigma2 there are as many of one kind as of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual import registry
from lmmfast.residual.complex_step import complex_step
from lmmfast.residual.kind import Natural, Setting
from lmmfast.residual.structure import Correlation

Values = Any


@dataclass(frozen=True, eq=False)
class VariancePart:
    """One variance model with its parameters.

    Attributes
    ----------
    kind : str
        "levels", "power" or "exponential".
    columns : tuple of str
    labels : tuple of str
        Levels with a standard deviation each (the first is the baseline and has no parameter), or
        levels of ``by`` with an exponent each.
    center : float
        What is subtracted from log|v| or v.
    scale : float
        What v is divided by ("exponential").
    params : slice
        Among the working parameters.
    """

    kind: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    center: float
    scale: float
    params: slice


@dataclass(frozen=True, eq=False)
class Stratum:
    """The correlation parameters of the clusters at one level of ``by``.

    Attributes
    ----------
    label : str or None
        Level; None without ``by``.
    psi : slice
    nu : int or None
        Position of the nugget fraction.
    """

    label: str | None
    psi: slice
    nu: int | None


@dataclass(frozen=True, eq=False)
class ResidualParameters:
    """Parameters of a residual structure: working, natural and the map between them.

    Attributes
    ----------
    correlation : Correlation or None
    variances : tuple of VariancePart
    strata : tuple of Stratum
        One without ``by``.
    levels : tuple of str
        Levels of the correlation's visits, if it has any.
    T : int
        Number of positions of a table structure.
    unit : float
        Unit of the distances that the kernels see.
    closest : float
        Smallest distance between neighbouring rows, in that unit.
    """

    correlation: Correlation | None
    variances: tuple[VariancePart, ...]
    strata: tuple[Stratum, ...]
    levels: tuple[str, ...]
    T: int
    unit: float
    closest: float = 1.0

    @property
    def n_params(self) -> int:
        """Number of working parameters, sigma2 not among them."""
        return self.n_variance + sum(s.psi.stop - s.psi.start for s in self.strata) + len(self._nu)

    @property
    def n_variance(self) -> int:
        """Number of parameters of variance models; they come first."""
        return sum(part.params.stop - part.params.start for part in self.variances)

    @property
    def _nu(self) -> list[int]:
        return [s.nu for s in self.strata if s.nu is not None]

    # -- from what is searched to what the kernels take ------------------------------------------

    def kappa(self, phi: Array) -> Array:
        """Working parameters of search parameters phi: nu = sin(eta)^2, all others as they are.

        A nugget of zero is an interior, stationary point for eta.
        """
        kappa = phi.copy()
        kappa[self._nu] = np.sin(phi[self._nu]) ** 2
        return kappa

    @property
    def fractions(self) -> list[int]:
        """Places of the working parameters that lie between zero and one."""
        return self._nu

    def nuggets(self, kappa: Array) -> Array:
        """Nugget fractions among working parameters."""
        return kappa[self._nu]

    def phi(self, kappa: Array) -> Array:
        """Search parameters of working ones."""
        phi = kappa.copy()
        phi[self._nu] = np.arcsin(np.sqrt(np.clip(kappa[self._nu], 0.0, 1.0)))
        return phi

    def derivatives(self, phi: Array) -> tuple[Array, Array]:
        """First and second derivatives of each working parameter by its search parameter."""
        first, second = np.ones(len(phi)), np.zeros(len(phi))
        first[self._nu] = np.sin(2 * phi[self._nu])
        second[self._nu] = 2 * np.cos(2 * phi[self._nu])
        return first, second

    # -- natural parameters ----------------------------------------------------------------------

    def natural(self, kappa: Values, sigma2: Values) -> Values:
        """Natural parameters (n_params + 1,); complex-safe."""
        out: list[Values] = []
        for stratum in self.strata if self.correlation is not None else ():
            if stratum.nu is not None:
                nu = kappa[stratum.nu]
                total = self.stratum_variance(stratum, self._level_variances(kappa, sigma2))
                out.append(total * (1 - nu) if self.splits_nugget else nu)
            out += list(self._correlations(stratum, kappa, sigma2))
        for part in self.variances:
            values = kappa[part.params]
            if part.kind != "levels":
                out += list(values / part.scale)
            elif part is not self.level_part:
                out += list(np.exp(values))
        return np.array(out + list(self._variances(kappa, sigma2)))

    def names(self) -> list[Natural]:
        """Names of the natural parameters, in their order."""
        out: list[Natural] = []
        for stratum in self.strata if self.correlation is not None else ():
            assert self.correlation is not None
            if stratum.nu is not None:
                columns = ",".join(self.correlation.columns)
                if self.splits_nugget:
                    text = _with(f"{self.correlation.label}|{columns}", stratum.label)
                    out.append(Natural(f"var({text})", "variance"))
                else:
                    out.append(Natural(f"nugget({_with(columns, stratum.label)})", "fraction"))
            out += self._correlation_names(stratum)
        for part in self.variances:
            column = ",".join(part.columns)
            if part.kind != "levels":
                word = "power" if part.kind == "power" else "expon"
                labels: Sequence[str | None] = part.labels or (None,)
                out += [Natural(f"{word}({_with(column, label)})", "free") for label in labels]
            elif part is not self.level_part:
                out += [Natural(f"ratio(Residual|{label})", "range") for label in part.labels[1:]]
        word = "Total" if self.has_nugget and not self.splits_nugget else "Residual"
        return out + [Natural(f"var({word}{tail})", "variance") for tail in self._tails]

    @property
    def level_part(self) -> VariancePart | None:
        """The part whose levels are reported as variances; further ones are ratios."""
        return next((part for part in self.variances if part.kind == "levels"), None)

    @property
    def splits_nugget(self) -> bool:
        """Whether process and measurement error are reported as variances, not as a fraction."""
        correlation = self.correlation
        if correlation is None or not correlation.nugget:
            return False
        own = () if correlation.by is None else (correlation.by,)
        return all(part.kind == "levels" and part.columns == own for part in self.variances)

    @property
    def has_nugget(self) -> bool:
        """Whether a part of the variance is measurement error."""
        return self.correlation is not None and self.correlation.nugget

    def total_variances(self, kappa: Values, sigma2: Values) -> dict[str, Values]:
        """Variances of rows by level of the variance model: ``{"|a": ..., "|b": ...}``."""
        return dict(zip(self._tails, self._level_variances(kappa, sigma2), strict=True))

    def error_variances(self, kappa: Values, sigma2: Values) -> dict[str, Values]:
        """Variances of the measurement error by level, of rows where there is none apart."""
        totals = self.total_variances(kappa, sigma2)
        if not self.has_nugget:
            return totals
        if self.splits_nugget:
            return dict(zip(self._tails, self._variances(kappa, sigma2), strict=True))
        return {
            _joined(tail, stratum.label): total * kappa[stratum.nu]
            for tail, total in totals.items()
            for stratum in self.strata
        }

    @property
    def _tails(self) -> list[str]:
        part = self.level_part
        return [f"|{label}" for label in part.labels] if part else [""]

    def shift(self, kappa: Values) -> Values:
        """By how much log s is higher at the means of covariates than at v = 1 (power) or 0."""
        return sum(
            kappa[part.params][0] * part.center / (1.0 if part.kind == "power" else part.scale)
            for part in self.variances
            if part.kind != "levels" and part.center != 0
        )

    def _base(self, kappa: Values, sigma2: Values) -> Values:
        """Variance of a row at the baseline of all levels and v = 1 (power) or v = 0."""
        return sigma2 * np.exp(-2 * self.shift(kappa))

    def _level_variances(self, kappa: Values, sigma2: Values) -> Values:
        """Total variances of the levels of the first part with levels; one without."""
        part, base = self.level_part, self._base(kappa, sigma2)
        if part is None:
            return np.array([base])
        return base * np.concatenate([[1.0], np.exp(2 * kappa[part.params])])

    def stratum_variance(self, stratum: Stratum, variances: Values) -> Values:
        """Total variance of a stratum, out of those of the levels."""
        part = self.level_part
        if part is None or stratum.label is None:
            return variances[0]
        return variances[part.labels.index(stratum.label)]

    def _variances(self, kappa: Values, sigma2: Values) -> Values:
        """Variances as reported: of the measurement error where the nugget is split off."""
        variances = self._level_variances(kappa, sigma2)
        if not self.splits_nugget:
            return variances
        part = self.level_part
        labels: Sequence[str | None] = part.labels if part else (None,)
        nu = {s.label: kappa[s.nu] for s in self.strata}
        return variances * np.array([nu[label] for label in labels])

    def _correlations(self, stratum: Stratum, kappa: Values, sigma2: Values) -> list[Values]:
        """Natural correlation parameters of a stratum."""
        correlation, psi = self.correlation, kappa[stratum.psi]
        assert correlation is not None
        if correlation.kind == "custom":
            return list(psi)
        kind = registry.KINDS[correlation.kind]
        natural = kind.natural(psi, self.setting(stratum))
        if not kind.reports_covariances:
            return natural
        sds = np.sqrt(self.visit_variances(stratum, self._level_variances(kappa, sigma2)))
        j, k = np.triu_indices(self.T, 1)
        return list(np.array(natural) * sds[j] * sds[k])

    def setting(self, stratum: Stratum) -> Setting:
        """What the correlation of a stratum meets in the data."""
        correlation = self.correlation
        assert correlation is not None
        return Setting(
            ",".join(correlation.columns),
            stratum.label,
            self.levels,
            self.T,
            stratum.psi.stop - stratum.psi.start,
            self.unit,
            self.closest,
            correlation.report,
        )

    def visit_variances(self, stratum: Stratum, variances: Values) -> Values:
        """Variances (T,) of the visits of a stratum, out of those of the levels."""
        return variances[[self.level_index(stratum, level) for level in self.levels]]

    def level_index(self, stratum: Stratum, level: str) -> int:
        """Place of a visit of a stratum among the levels of the variances."""
        part = self.level_part
        assert part is not None
        label = level if stratum.label is None else f"{stratum.label}:{level}"
        return part.labels.index(label)

    def _correlation_names(self, stratum: Stratum) -> list[Natural]:
        correlation = self.correlation
        assert correlation is not None
        if correlation.custom is not None:
            return [Natural(name, "free") for name in correlation.custom.names]
        return registry.KINDS[correlation.kind].names(self.setting(stratum))

    def jacobian(self, kappa: Array, sigma2: float) -> Array:
        """Derivatives of the natural parameters by (kappa, sigma2), (n_params + 1, n_params + 1).

        Natural parameters along the rows.
        """
        at = np.append(kappa, sigma2)
        return complex_step(lambda x: self.natural(x[:-1], x[-1]), at).T


def _joined(tail: str, label: str | None) -> str:
    return tail if label is None else f"{tail}|{label}"


def _with(text: str, label: str | None) -> str:
    return text if label is None else f"{text}|{label}"
