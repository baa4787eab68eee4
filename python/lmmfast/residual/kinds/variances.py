"""Structures without correlation: independent residuals, and variances of their own."""

from __future__ import annotations

from lmmfast.residual.signatures import written
from lmmfast.residual.structure import ResidualStructure, Source, Variance


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
