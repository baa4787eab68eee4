"""Fits with nested grouping factors whose innermost levels have a residual structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.design.design import Design
from lmmfast.engines.choose import engine_of_nested_structure
from lmmfast.errors import UnsupportedModelError
from lmmfast.fitting.residual import ResidualFit
from lmmfast.grouping.clusters import gather
from lmmfast.grouping.levels import Levels
from lmmfast.search.scoring import Search

if TYPE_CHECKING:
    from lmmfast.fitting.options import Options


class NestedResidualFit(ResidualFit):
    """The stages of a fit with nested factors and correlated residuals.

    Residuals are correlated within the levels of the innermost factor.

    Parameters
    ----------
    levels : Levels
        In the order of the rows of the design.

    Raises
    ------
    UnsupportedModelError
        The factors are crossed, or residuals are to be correlated within outer levels.
    """

    def __init__(
        self, design: Design, levels: Levels, random: BlockCovariance, options: Options
    ) -> None:
        if levels.chain is None:
            raise UnsupportedModelError(
                f"residual={design.residual} with crossed grouping factors "
                f"{', '.join(map(repr, levels.names))}: residual structures go with one grouping "
                "factor, or with nested ones; leave residual= out"
            )
        innermost = levels.chain[-1]
        _check_clusters(design, levels.names[innermost])
        self.levels = levels
        clusters = gather(design.factor_keys[innermost], options.n_jobs)
        super().__init__(design, clusters, random, options)

    def _choose_engine(self, A: Array, Z: Array, weights: Array | None) -> Any:
        return engine_of_nested_structure(
            (A, Z, weights),
            self._rows_in_basis,
            self.levels,
            self.model,
            self.options.engine,
            n_threads(self.options.n_jobs),
        )

    def _rows_in_basis(self, rows: Any) -> tuple[Array, Array, Array | None]:
        return self.basis.working(self.design.batch(rows), n_jobs=self.options.n_jobs)

    def _sample(self) -> Search | None:
        """Return nothing: some clusters alone say little about outer levels."""
        return None


def _check_clusters(design: Design, innermost: str) -> None:
    """Refuse ``groups=`` that name another factor than the innermost."""
    formula = getattr(design.spec, "formula", None)
    wanted = () if formula is None else formula.clusters
    if wanted and set(wanted) != set(innermost.split(":")):
        raise UnsupportedModelError(
            f"groups={':'.join(wanted)!r}: residuals are correlated within the levels of the "
            f"innermost grouping factor, {innermost!r}; leave groups= out"
        )
