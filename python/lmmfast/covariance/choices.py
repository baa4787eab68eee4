"""What users choose for D: by ``lmmfast.D``, or by its name in a formula."""

from __future__ import annotations

from lmmfast.covariance.structures import (
    STRUCTURES,
    CompoundSymmetry,
    Diagonal,
    HeterogeneousCS,
    Identity,
    RandomStructure,
    Unstructured,
)


class D:
    """Choices for the covariance matrix D of a random-effects term.

    Examples
    --------
    >>> import lmmfast as lf
    >>> lf.D.diag()
    D.diag()
    """

    @staticmethod
    def unstructured() -> RandomStructure:
        """Any covariance matrix (lme4's default, nlme's pdSymm, SAS TYPE=UN)."""
        return Unstructured()

    @staticmethod
    def diag(*, hom: bool = False) -> RandomStructure:
        """Independent effects, a variance each (pdDiag, TYPE=VC); ``hom=True``: one variance."""
        return Identity() if hom else Diagonal()

    @staticmethod
    def identity() -> RandomStructure:
        """Independent effects, one common variance (pdIdent)."""
        return Identity()

    @staticmethod
    def cs(*, hom: bool = False) -> RandomStructure:
        """One common correlation and, as in lme4's ``cs()``, a variance each (TYPE=CSH).

        ``hom=True``: one variance as well (pdCompSymm, TYPE=CS).
        """
        return CompoundSymmetry() if hom else HeterogeneousCS()


def structure(name: str, hom: bool | None = None) -> RandomStructure:
    """Return the structure that a formula names: us, diag, identity or cs."""
    if name == "identity":
        return Identity()
    wanted = (name, None if name == "us" else bool(hom))
    return next(one for one in STRUCTURES.values() if one.formula == wanted)
