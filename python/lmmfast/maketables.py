"""Fits in tables of models that maketables writes; a table of one fit is `LMMResult.table`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

__all__ = ["Entry", "entry"]

_STATS: dict[str, Callable[[LMMResult], Any]] = {
    "N": lambda fit: fit.nobs,
    "ngroups": lambda fit: ", ".join(f"{m}" for m, _ in fit._grouping.values()),
    "ll": lambda fit: fit.llf,
    "aic": lambda fit: fit.aic,
    "bic": lambda fit: fit.bic,
    "deviance": lambda fit: fit.deviance,
    "sigma": lambda fit: float(fit.scale) ** 0.5,
    "method": lambda fit: fit.method,
}


class Entry:
    """What ``maketables.ETable`` asks of a fit, and nothing that other readers would know it by."""

    def __init__(self, fit: LMMResult) -> None:
        self._fit = fit

    @cached_property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        """Coefficients: b, se, t, p and the limits of 95 % intervals."""
        table = self._fit.tidy()
        names = {"estimate": "b", "std_error": "se", "statistic": "t", "p_value": "p"}
        table = table.rename(columns={**names, "conf_low": "ci95l", "conf_high": "ci95u"})
        table.index.name = "Coefficient"
        return table[["b", "se", "t", "p", "ci95l", "ci95u"]]

    @property
    def __maketables_depvar__(self) -> str:
        """The response."""
        return self._fit.y_name

    @property
    def __maketables_fixef_string__(self) -> str | None:
        """Grouping factors, joined by ``+``."""
        return "+".join(self._fit._grouping)

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        """How standard errors were had."""
        method = self._fit._method
        return {"vcov_type": method.vcov, "df": method.ddf}

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        """Labels of the statistics that maketables has none for."""
        return {"ngroups": "Groups", "ll": "Log-likelihood", "sigma": "Residual SD"}

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        """Statistics that are shown."""
        return ["N", "ngroups", "ll", "aic"]

    def __maketables_stat__(self, key: str) -> Any:
        """Return a statistic by its key; None where there is none."""
        made = _STATS.get(key)
        return None if made is None else made(self._fit)


def entry(fit: LMMResult) -> Entry:
    """Return a fit as ``maketables.ETable`` takes it.

    maketables 0.2 takes a fit itself for one of statsmodels', without its response and groups.

    Parameters
    ----------
    fit : LMMResult

    Returns
    -------
    Entry

    Examples
    --------
    >>> import lmmfast as lf
    >>> from lmmfast.maketables import entry
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> entry(fit).__maketables_depvar__
    'Reaction'
    """
    return Entry(fit)
