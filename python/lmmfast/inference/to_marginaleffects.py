"""A fit as the package marginaleffects wants a model: predictions, comparisons, slopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.formula.spec import FormulaSpec

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


def to_marginaleffects(fit: LMMResult) -> Any:
    """Wrap a fit; see `LMMResult.to_marginaleffects`."""
    if not isinstance(fit.spec, FormulaSpec):
        raise DataError(
            "marginaleffects needs columns of data by name, and this model was fitted to arrays"
        )
    try:
        from marginaleffects.classes import ModelAbstract, ModelVault
    except ImportError:
        raise ImportError(
            "to_marginaleffects needs marginaleffects 0.6 or newer: "
            "pip install 'lmmfast[marginaleffects]'"
        ) from None

    class MarginalEffectsModel(ModelAbstract):  # type: ignore[misc]
        """What marginaleffects asks of a model, from a fit and its method of inference."""

        def get_vcov(self, vcov: Any = True) -> Array | None:
            """Return the covariance matrix of the fit's method, or a robust one by name."""
            if isinstance(vcov, bool):
                return np.array(fit.cov_params()) if vcov else None
            return np.array(fit.inference(vcov=vcov).cov_params())

        def get_exog(self, newdata: Any) -> Array:
            """Return the columns of the fixed effects."""
            return fit.model_matrix(newdata).to_numpy()

        def get_predict(self, params: Array, newdata: Any) -> Any:
            """Return X beta."""
            import polars as pl

            estimate = np.asarray(newdata) @ np.asarray(params)
            rows = pl.Series("rowid", range(len(estimate)), dtype=pl.Int32)
            return pl.DataFrame({"rowid": rows, "estimate": estimate})

        @property
        def df_resid(self) -> float:
            """Degrees of freedom: one number for all, the fewest of the coefficients."""
            return float(np.min(fit.df.to_numpy(), initial=np.inf))

    columns = sorted(fit.spec.parts["X"].columns)
    vault = ModelVault(
        coef=fit.params.to_numpy(copy=True),
        coefnames=np.array(fit.x_names),
        formula=_columns,
        modeldata=_data(fit, columns),
        package="lmmfast",
        variable_names=[fit.y_name, *columns],
    )
    return MarginalEffectsModel(fit, vault)


def _columns(*_: Any) -> None:
    """Stand for the formula, which is not to be read: `get_exog` makes the columns."""


def _data(fit: LMMResult, columns: list[str]) -> Any:
    """The rows used: columns of the fixed effects, factors with the levels of the fit."""
    import polars as pl

    design: Any = fit._need(fit._design, "marginal effects")
    fit._check_data(response=False)
    made = {}
    for name in columns:
        column = design.column(name)
        if column.levels is None:
            made[name] = pl.Series(name, np.array(column.values))
            continue
        levels = [str(level) for level in fit.spec.levels[name]]
        texts = np.asarray(column.levels)[column.values].astype(str)
        made[name] = pl.Series(name, texts.tolist(), dtype=pl.Enum(levels))
    made[fit.y_name] = pl.Series(fit.y_name, np.asarray(design.batch(slice(0, fit.nobs)).y))
    return pl.DataFrame(made)
