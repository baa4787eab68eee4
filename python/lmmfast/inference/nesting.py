"""Whether one model is a special case of another: decided where it can be, else not known.

Columns are told apart by what the user calls them; `lmmfast.compare` sees to it that columns of
one name hold the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmmfast.covariance.structures import STRUCTURES
from lmmfast.covariance.terms import Term
from lmmfast.data.columns import Column
from lmmfast.formula.spec import FormulaSpec
from lmmfast.residual import registry
from lmmfast.residual.structure import Correlation, ResidualStructure, Variance

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

ZERO_VARIANCE = "conservative: variance 0 in the smaller model"
ZERO_CORRELATION = "conservative: correlation 0 in the smaller model"
UNDEFINED = "rough: smaller model leaves parameters undefined"


def covariance_nested(small: LMMResult, big: LMMResult) -> bool:
    """Whether V of `small` is known to be a special case of V of `big`."""
    if not _same_groups(small, big):
        return False
    columns = {} if big._design is None else big._design.residual_columns
    within = structure_nested(small.residual, big.residual, columns)
    if within and terms_nested(small.terms, big.terms):
        return True
    return within and not big.terms and _absorbed(small, big.residual)


def cautions(small: LMMResult, big: LMMResult) -> list[str]:
    """Why the chi-squared distribution does not hold though `small` is nested in `big`."""
    out = []
    one, other = small.residual.correlation, big.residual.correlation
    if effects(big) - effects(small):
        out.append(ZERO_VARIANCE)
    if one is None and other is not None and other.kind == "arma11":
        out.append(UNDEFINED)
    if other is not None and other.kind in registry.DISTANCES and other.kind != "ar1":
        if one is None:
            out.append(UNDEFINED if other.nugget else ZERO_CORRELATION)
        elif other.nugget and not one.nugget and ZERO_VARIANCE not in out:
            out.append(ZERO_VARIANCE)
    return out


def effects(fit: LMMResult) -> set[tuple[str, str]]:
    """Grouping factor and name of each random effect."""
    return {(term.group, name) for term in fit.terms for name in term.names}


def _same_groups(small: LMMResult, big: LMMResult) -> bool:
    """Whether the groups that `small` has are groups of `big` too."""
    used = {term.group for term in small.terms}
    if small.residual.correlation is not None:
        inner, other = _innermost(small), _innermost(big)
        if inner != other:
            return False
        used.add(inner)
    counts = {name: m for name, (m, _) in big._grouping.items()}
    return all(counts.get(name) == small._grouping[name][0] for name in used)


def _innermost(fit: LMMResult) -> str:
    """Grouping factor within whose levels residuals are correlated."""
    return max(fit._grouping, key=lambda name: fit._grouping[name][0])


# -- random effects ------------------------------------------------------------------------------


def terms_nested(small: Sequence[Term], big: Sequence[Term]) -> bool:
    """Whether every D of the terms `small` is among those of the terms `big`."""
    hosts = [next((k for k, b in enumerate(big) if _within(s, b)), None) for s in small]
    if None in hosts:
        return False
    for k, term in enumerate(big):
        guests = [s for s, host in zip(small, hosts, strict=True) if host == k]
        if guests and not _guests_fit(guests, term):
            return False
    return True


def _within(term: Term, host: Term) -> bool:
    """Whether another term of the same grouping factor has all effects of a term."""
    return term.group == host.group and set(term.names) <= set(host.names)


def _guests_fit(guests: Sequence[Term], host: Term) -> bool:
    """Whether block-diagonal D of the guests, zero elsewhere, are among those of the host."""
    structure = host.structure.name
    if structure == "unstructured":
        return True
    if structure == "diagonal":
        return all(_structure(g) in ("diagonal", "identity") for g in guests)
    (guest, *others) = guests
    alone = not others and set(guest.names) == set(host.names)
    return alone and structure in STRUCTURES[_structure(guest)].within


def _structure(term: Term) -> str:
    """Name of the structure of D; of a single effect all are the same."""
    return "identity" if len(term.names) == 1 else term.structure.name


def _absorbed(small: LMMResult, big: ResidualStructure) -> bool:
    """Whether the random effects of `small` are part of the marginal structure `big` already."""
    correlation = big.correlation
    if correlation is None or correlation.by is not None:
        return False
    used = _random_columns(small)
    if used is None:
        return False
    if correlation.kind == "unstructured":
        return used <= set(correlation.columns) and len(big.variances) == 1
    plain = not used and not big.variances
    if correlation.kind == "compound_symmetry":
        return plain and small.residual.is_independent
    return plain and correlation.kind == "toeplitz"


def _random_columns(fit: LMMResult) -> set[str] | None:
    """Columns of the data that Z is made of; None: not known."""
    if isinstance(fit.spec, FormulaSpec):
        parts = (fit.spec.parts[name].columns for name in fit.spec.z_parts)
        return set().union(*parts)
    return set() if fit.z_names == ["Intercept"] else None


# -- residuals -----------------------------------------------------------------------------------


def structure_nested(
    small: ResidualStructure, big: ResidualStructure, columns: dict[str, Column]
) -> bool:
    """Whether R of one structure is among those of another.

    Parameters
    ----------
    small, big : ResidualStructure
        With names of columns.
    columns : dict of Column
        Of `big`.
    """
    return _correlation_nested(small.correlation, big.correlation, columns) and all(
        any(_variance_nested(one, other) for other in big.variances) for one in small.variances
    )


def _correlation_nested(
    small: Correlation | None, big: Correlation | None, columns: dict[str, Column]
) -> bool:
    if small is None:
        return True
    if big is None or small.by not in (None, big.by):
        return False
    same_columns = small.columns == big.columns
    if small.kind == big.kind and same_columns:
        return _same_kind_nested(small, big)
    if big.kind not in registry.TABLES:
        return False
    if small.kind == "compound_symmetry":
        return big.kind in ("compound_symmetry", "toeplitz", "unstructured")
    if not same_columns or small.kind == "custom":
        return small.kind == big.kind == "compound_symmetry"
    if big.kind == "arma11":
        return small.kind == "ar1"
    if big.kind == "antedependence":
        return small.kind in ("ar1", "exponential") and not small.nugget
    if big.kind == "toeplitz":
        if small.kind in registry.DISTANCES or small.kind == "arma11":
            return equally_spaced(columns.get(big.columns[0]))
        return small.kind == "banded_toeplitz"
    return big.kind == "unstructured"


def _same_kind_nested(small: Correlation, big: Correlation) -> bool:
    if small.nugget and not big.nugget:
        return False
    if small.kind == "custom":
        return (
            small.custom is not None
            and big.custom is not None
            and (small.custom.function is big.custom.function)
        )
    return small.bands is None or big.bands is None or small.bands <= big.bands


def _variance_nested(small: Variance, big: Variance) -> bool:
    if small.kind == big.kind and small.columns == big.columns and small.by in (None, big.by):
        return True
    depends = {*small.columns, *(() if small.by is None else (small.by,))}
    return big.kind == "levels" and depends <= set(big.columns)


def equally_spaced(column: Column | None) -> bool:
    """Whether the levels of visits lie at equal distances, as levels of a factor do."""
    if column is None:
        return False
    if column.is_factor:
        return True
    steps = np.diff(np.unique(column.values).astype(float))
    return bool(np.allclose(steps, steps[0], rtol=1e-9, atol=0.0)) if len(steps) else False
