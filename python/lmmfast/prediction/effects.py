"""The fitted model with several grouping factors: effects, fitted values and curves by factor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.frame import Rows
from lmmfast.grouping.levels import Levels
from lmmfast.implied import levels as implied_levels
from lmmfast.implied.implied import Group, GroupedRows
from lmmfast.packing.basis import check_scales
from lmmfast.prediction.new_rows import FactorEffects
from lmmfast.prediction.rows_used import n_of
from lmmfast.result import LMMResult
from lmmfast.search.information import without_negative_variances

if TYPE_CHECKING:
    import pandas as pd


class LevelsResult(LMMResult):
    """A fitted linear mixed model with several grouping factors, nested or crossed.

    As `LMMResult`, with these differences: ``random_effects``, ``random_effects_cov``, ``ngroups``
    and ``group_sizes`` are dicts by grouping factor; ``level=`` of `fitted`, `resid` and `predict`
    may name a factor, whose effects and those of the factors around it are then included.
    """

    def _set_groups(self, clusters: Any) -> None:
        levels = cast("Levels", clusters)
        self.factor_names = levels.names
        self._columns = levels.columns
        self.nested_in = {
            name: [
                levels.names[k]
                for k in sorted(levels.outer(factor), key=lambda k: levels.counts[k])
            ]
            for factor, name in enumerate(levels.names)
        }
        self._grouping = {}
        for name, codes, m in zip(levels.names, levels.codes, levels.counts, strict=True):
            sizes = np.bincount(codes, minlength=m)
            self._grouping[name] = m, (int(sizes.min()), float(sizes.mean()), int(sizes.max()))
        self.ngroups = {name: m for name, (m, _) in self._grouping.items()}
        self.group_sizes = {name: sizes for name, (_, sizes) in self._grouping.items()}

    # -- random effects --------------------------------------------------------------------------

    @cached_property
    def _effects(self) -> list[Array]:  # type: ignore[override]
        """Predictions of the random effects of each factor, (m_f, q_f)."""
        engine: Any = self._need(self._engine, "the random effects")
        root = self._basis.y_scale * self._basis.z_map() @ self._Lambda
        effects: list[Array] = engine.random_effects(self._Lambda, root, self._c)
        design = self._need(self._design, "the random effects")
        for b in effects:
            check_scales(design, b, "the random effects")
        return effects

    @property
    def group_labels(self) -> dict[str, Array]:  # type: ignore[override]
        """Levels of each factor in sorted order."""
        return {name: np.array(labels) for name, labels in self._group_labels.items()}

    @cached_property
    def _group_labels(self) -> dict[str, Array]:  # type: ignore[override]
        """Levels of each grouping factor in the order of ``random_effects``."""
        levels: Any = self._need(self._clusters, "the groups")
        return {
            name: np.asarray(labels)
            for name, labels in zip(levels.names, levels.labels, strict=True)
        }

    @property
    def random_effects(self) -> dict[str, pd.DataFrame]:  # type: ignore[override]
        """Predictions (BLUPs) of the random effects of each factor, a row per level."""
        import pandas as pd

        found = {}
        for name, b, columns in zip(self.factor_names, self._effects, self._columns, strict=True):
            index = pd.Index(np.asarray(self._group_labels[name]), name=name)
            found[name] = pd.DataFrame(b, index, [self.z_names[k] for k in columns], copy=True)
        return found

    @property
    def random_effects_cov(self) -> dict[str, Array]:  # type: ignore[override]
        """Var(b | y) at the estimates of each level of each factor, (m_f, q_f, q_f).

        The uncertainty of beta is not included (as lme4's ``condVar``).
        """
        engine: Any = self._need(self._engine, "the covariances of the random effects")
        root = np.sqrt(self._unit) * self._basis.z_map() @ self._Lambda
        found = map(without_negative_variances, engine.random_effects_cov(self._Lambda, root))
        return dict(zip(self.factor_names, found, strict=True))

    # -- levels of prediction --------------------------------------------------------------------

    def _factors_at(self, level: str | Sequence[str]) -> list[int]:
        """Factors whose effects belong to a level of prediction.

        Raises
        ------
        ValueError
        """
        names = self.factor_names
        if isinstance(level, str) and level in ("population", "conditional"):
            return list(range(len(names))) if level == "conditional" else []
        wanted = [level] if isinstance(level, str) else list(level)
        for name in wanted:
            if name not in names:
                choices = ", ".join(map(repr, ("population", *names, "conditional")))
                raise ValueError(f"level={name!r}: choose one of {choices}")
        every = {name for chosen in wanted for name in [chosen, *self.nested_in[chosen]]}
        return [k for k, name in enumerate(names) if name in every]

    @cached_property
    def _factor_effects(self) -> list[FactorEffects]:
        return [
            FactorEffects(name, columns, b, self._group_labels[name])
            for name, columns, b in zip(
                self.factor_names, self._columns, self._effects, strict=True
            )
        ]

    @property
    def _level_codes(self) -> list[NDArray[np.intp]]:
        """By factor, the position among its effects of the level of each row used, (n,)."""
        levels: Any = self._need(self._clusters, "fitted values")
        return [np.asarray(codes, dtype=np.intp) for codes in levels.codes]

    def _row_effects(self, level: str) -> Callable[[list[Array], Rows], Array]:
        """Z b of rows of the fit, of the factors that belong to a level."""
        levels: Any = self._need(self._clusters, "fitted values")
        factors = self._factors_at(level)

        def effects(Z: list[Array], rows: Rows) -> Array:
            total = np.zeros(n_of(rows))
            for factor in factors:
                b = self._effects[factor][levels.codes[factor][rows]]
                for k, column in enumerate(self._columns[factor]):
                    total += Z[column] * b[:, k]
            return total

        return effects

    # -- which rows go together ------------------------------------------------------------------

    def _row_order(self) -> NDArray[np.intp]:
        return implied_levels.row_order(self)

    def _find_group(self, group: Any, at: bool) -> Group:
        return implied_levels.find_group(self, group, at)

    def _row_labels(self, places: NDArray[np.intp]) -> pd.Index[Any]:
        return implied_levels.level_labels(self, places)

    def _implied(self, group: Group) -> Array:
        return implied_levels.implied(self, group)

    def _grouped_rows(self, within: str | None) -> GroupedRows:
        return implied_levels.grouped_rows(self, within)

    def _factor_columns(  # type: ignore[override]
        self, rows: NDArray[np.intp]
    ) -> list[tuple[NDArray[np.intp], NDArray[np.int64]]]:
        codes = implied_levels.levels_of(self).codes
        return [(c, codes[k][rows]) for k, c in enumerate(self._columns)]

    def _whitened(self) -> NDArray[np.float64]:
        from lmmfast.diagnostics.residuals import whitened_blocks

        return whitened_blocks(self)
