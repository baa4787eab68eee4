"""A regressor for scikit-learn: groups come by metadata routing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.api import fit as fit_arrays
from lmmfast.arrays import Array
from lmmfast.errors import DataError

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "lmmfast.sklearn needs scikit-learn 1.6 or newer: pip install 'lmmfast[sklearn]'"
    ) from error


class LMMRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A linear mixed model as a regressor: ``fit(X, y, groups=...)``, ``predict(X, groups=...)``.

    Parameters
    ----------
    random_slopes : sequence of int or str, optional
        Columns of X, by position or name, whose slopes vary between groups; the intercept does.
    D : RandomStructure, optional
        Covariance structure of the random effects, such as ``lmmfast.D.diag()``; unstructured by
        default.
    reml : bool
        Restricted maximum likelihood, or maximum likelihood.
    fit_intercept : bool
        Whether there is a fixed intercept.
    n_jobs : int, optional
        Threads; all by default.

    Attributes
    ----------
    coef_ : ndarray (n_features_in_,)
        Fixed effects; zero for columns that others determine.
    intercept_ : float
    result_ : LMMResult or None
        All there is to know of the fit; None without groups.
    n_features_in_ : int
    feature_names_in_ : ndarray of str (n_features_in_,)
        Where X was a frame.

    Notes
    -----
    Without groups there are no random effects, and the fit is ordinary least squares. Groups that
    the fit did not have are predicted by their fixed effects, as are all rows without groups.

    Weights are those of `lmmfast.fit`: they divide the residual variance, and are no counts of
    rows. So they are no ``sample_weight``.

    Examples
    --------
    >>> import lmmfast as lf
    >>> from lmmfast.sklearn import LMMRegressor
    >>> d = lf.datasets.sleepstudy()
    >>> model = LMMRegressor(random_slopes=["Days"])
    >>> model = model.fit(d[["Days"]], d["Reaction"], groups=d["Subject"])
    >>> model.predict(d[["Days"]][:2], groups=d["Subject"][:2]).round(1).tolist()
    [253.7, 273.3]
    """

    def __init__(
        self,
        *,
        random_slopes: Sequence[int | str] | None = None,
        D: Any = None,
        reml: bool = True,
        fit_intercept: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self.random_slopes = random_slopes
        self.D = D
        self.reml = reml
        self.fit_intercept = fit_intercept
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, groups: Any = None, weights: Any = None) -> LMMRegressor:
        """Fit the model.

        Parameters
        ----------
        X : array or frame (n, p)
        y : array (n,)
        groups : array (n,), optional
            Integers, text or categories. Without them: least squares.
        weights : array (n,), optional
            Residual variances are sigma2 / weights.

        Returns
        -------
        LMMRegressor
            Itself.

        Raises
        ------
        DataError
            Unknown columns in ``random_slopes``, a constant response with groups.
        """
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        self.result_ = None
        if groups is None:
            self._fit_least_squares(X, y, weights)
            return self
        names = [*(["Intercept"] if self.fit_intercept else []), *self._names()]
        result = fit_arrays(
            y,
            self._design(X),
            groups,
            Z=self._effects(X),
            weights=weights,
            x_names=names,
            z_names=["Intercept", *(self._names()[j] for j in self._slopes())],
            reml=self.reml,
            D=self.D,
            n_jobs=self.n_jobs,
        )
        params = dict.fromkeys(names, 0.0) | result.params.to_dict()
        self.intercept_ = float(params["Intercept"]) if self.fit_intercept else 0.0
        self.coef_ = np.array([params[name] for name in self._names()])
        self.result_, self._score_rows = result, result.scorer()
        return self

    def predict(self, X: Any, groups: Any = None) -> Array:
        """Predict rows: with the random effects of their groups, if groups are given.

        Parameters
        ----------
        X : array or frame (n, p)
        groups : array (n,), optional

        Returns
        -------
        ndarray (n,)
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        if groups is None or self.result_ is None:
            return np.asarray(X @ self.coef_ + self.intercept_)
        found = self._score_rows(self._design(X), groups=groups, Z=self._effects(X))
        return np.asarray(found)

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """Return R² of the predictions.

        Parameters
        ----------
        X, groups
            As in `predict`.
        y : array (n,)
        sample_weight : array (n,), optional
            Of the rows in R².
        """
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X, groups=groups), sample_weight=sample_weight))

    def _fit_least_squares(self, X: Array, y: Array, weights: Any) -> None:
        A = self._design(X)
        if weights is not None:
            root = np.sqrt(np.asarray(weights, dtype=np.float64))
            A, y = A * root[:, None], y * root
        beta = np.linalg.lstsq(A, y, rcond=None)[0]
        self.intercept_ = float(beta[0]) if self.fit_intercept else 0.0
        self.coef_ = np.asarray(beta[1:] if self.fit_intercept else beta)

    def _design(self, X: Array) -> Array:
        return np.column_stack([np.ones(len(X)), X]) if self.fit_intercept else X

    def _effects(self, X: Array) -> Array:
        """Columns of Z, (n, 1 + slopes)."""
        return np.column_stack([np.ones(len(X)), X[:, self._slopes()]])

    def _names(self) -> list[str]:
        names = getattr(self, "feature_names_in_", None)
        count: int = self.n_features_in_
        return [f"x{j}" for j in range(count)] if names is None else [str(n) for n in names]

    def _slopes(self) -> NDArray[np.intp]:
        """Positions of the columns whose slopes vary."""
        names, found = self._names(), []
        for column in () if self.random_slopes is None else self.random_slopes:
            if column in names:
                found.append(names.index(str(column)))
            elif isinstance(column, int | np.integer) and -len(names) <= column < len(names):
                found.append(int(column) % len(names))
            else:
                raise DataError(f"random_slopes: X has no column {column!r}")
        return np.array(found, dtype=np.intp)
