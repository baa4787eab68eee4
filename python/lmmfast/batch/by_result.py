"""The fits of one model to many segments: tables with a row per segment."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.inference.wald import coefficient_table
from lmmfast.literals import NewLevels
from lmmfast.pickled import checked, with_version

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.batch.by_fit import NamedColumns, Records, SegmentFitter
    from lmmfast.batch.by_models import SegmentModels
    from lmmfast.prediction.scorer import Scorer
    from lmmfast.result import LMMResult


# Log-likelihoods of one segment that differ more are of other data.
SAME_DATA = 1e-6
# Fits of single segments that are kept.
KEPT_FITS = 64


class LMMByResult(Mapping[Any, "LMMResult"]):
    """The fits of one model to each of S segments; made by `lmmfast.lmm_by`.

    A mapping of the segments to their fits: ``result[segment]``, ``for segment in result``,
    ``result.items()`` fit a segment again when they are asked for its `LMMResult`. Every table and
    series has the segments as its index, sorted. It can be pickled; without the data no single
    segment can be fitted again.

    Attributes
    ----------
    segments : pandas.Index (S,)
        Labels; a MultiIndex where several columns tell the segments apart.
    by : list of str
        Columns that tell the segments apart.
    method : str
        "REML" or "ML".
    n_dropped : int
        Rows left out for missing values.
    missing_counts : dict
        Columns with missing values, and how many.
    """

    def __init__(self, fitter: SegmentFitter, records: Records) -> None:
        self.segments, self.by = fitter.segments.labels, fitter.segments.by
        self.formula = fitter.formula.text
        self.method = "REML" if fitter.options.reml else "ML"
        self.n_dropped, self.missing_counts = records.n_dropped, records.missing_counts
        self._records = records
        self._fitter: SegmentFitter | None = fitter
        self._fits: OrderedDict[int, LMMResult] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self.segments)

    def __iter__(self) -> Iterator[Any]:
        """Run through the labels of the segments."""
        return iter(self.segments.tolist())

    def __contains__(self, segment: object) -> bool:
        """Tell whether there is such a segment."""
        return self._position(segment) is not None

    __eq__ = object.__eq__  # not that of dicts, which would fit all segments
    __hash__ = object.__hash__

    # -- a row per segment -----------------------------------------------------------------------

    @property
    def params(self) -> pd.DataFrame:
        """Fixed effects (S, names); NaN where a segment has no such coefficient."""
        return self._frame(self._records.params)

    @property
    def bse(self) -> pd.DataFrame:
        """Standard errors of the fixed effects (S, names)."""
        return self._frame(self._records.bse)

    @property
    def theta(self) -> pd.DataFrame:
        """Natural variance parameters (S, names), the residual variance among them."""
        return self._frame(self._records.theta)

    @property
    def llf(self) -> pd.Series[float]:
        """Log-likelihood, or restricted log-likelihood (S,); NaN where there is no fit."""
        return self._series(self._records.llf, "llf")

    @property
    def nobs(self) -> pd.Series[int]:
        """Rows used (S,); 0 where the columns of the model could not be made."""
        return self._series(self._records.nobs, "nobs")

    @property
    def ngroups(self) -> pd.Series[int] | pd.DataFrame:
        """Groups (S,); of several grouping factors a column for each (S, F)."""
        if self._records.factor_groups:
            import pandas as pd

            return pd.DataFrame(self._records.factor_groups, index=self.segments)
        return self._series(self._records.ngroups, "ngroups")

    @property
    def evaluations(self) -> pd.Series[int]:
        """Passes over the groups that each fit took (S,)."""
        return self._series(self._records.evaluations, "evaluations")

    @property
    def converged(self) -> pd.Series[bool]:
        """Whether there is a fit with a certificate of convergence (S,)."""
        return self._series(self._records.converged, "converged")

    @property
    def status(self) -> pd.Series[str]:
        """What the certificate says, or the error (S,)."""
        return self._series(self._records.status, "status")

    # -- what is out of the ordinary -------------------------------------------------------------

    @property
    def failed(self) -> pd.Series[str]:
        """Messages of the segments that have no fit; rows are counted within the segment."""
        return self._messages(self._records.failed, "failed")

    @property
    def warnings(self) -> pd.Series[str]:
        """Warnings of the segments that have some, such as columns dropped."""
        return self._messages(self._records.warnings, "warnings")

    # -- long table, single fits -----------------------------------------------------------------

    def tidy(self, alpha: float = 0.05) -> pd.DataFrame:
        """Return one row per segment and fixed effect.

        Parameters
        ----------
        alpha : float
            One minus the level of the intervals.

        Returns
        -------
        DataFrame
            The columns of the segments, ``term``, then those of ``LMMResult.tidy``.
        """
        import pandas as pd

        params = self.params
        estimates, errors = params.to_numpy(), self.bse.to_numpy()
        segment, term = np.nonzero(~np.isnan(estimates))
        table = coefficient_table(
            pd.Series(estimates[segment, term]), pd.Series(errors[segment, term]), alpha
        )
        table.insert(0, "term", params.columns.to_numpy()[term])
        where = self.segments.take(segment).to_frame(index=False)
        return pd.concat([where, table], axis=1)

    def fit(self, segment: Any) -> LMMResult:
        """Fit one segment again and return all there is to know about it.

        The last 64 fits are kept, and not made again. `predict`, `scorer` and the tables need none.

        Parameters
        ----------
        segment : label
            A tuple where several columns tell the segments apart.

        Returns
        -------
        LMMResult

        Raises
        ------
        KeyError
            There is no such segment.
        LmmError
            The segment cannot be fitted (see ``failed``), or the data are gone.
        """
        if self._fitter is None:
            raise DataError(
                "fitting a segment again needs the data, which a saved result does not hold"
            )
        position = self._known(segment)
        if position in self._fits:
            self._fits.move_to_end(position)
            return self._fits[position]
        fit, before = self._fitter.fit(position), self._records.llf[position]
        if abs(fit.llf - before) > SAME_DATA * (1 + abs(before)):
            raise DataError(
                f"the data of segment {segment!r} have changed since lmm_by: call "
                "it again, or fit a copy of the data before you write into them"
            )
        self._fits[position] = fit
        if len(self._fits) > KEPT_FITS:
            self._fits.popitem(last=False)
        return fit

    # -- predictions -----------------------------------------------------------------------------

    def predict(
        self,
        newdata: Any,
        level: str = "population",
        new_levels: NewLevels = "population",
        *,
        unknown_segments: str = "error",
    ) -> Array | pd.Series[float]:
        """Predict new rows, each by the fit of its segment.

        Transforms such as ``scale(x)`` are as the segment learnt them. No segment is fitted again,
        and no data are needed: it works after `lmmfast.load` too.

        Parameters
        ----------
        newdata : table
            With the columns of `by` and those of the formula.
        level : {"population", "conditional"}
            Without or with the predicted random effects.
        new_levels : {"population", "missing", "error"}
            What to do with groups that the fit of the segment did not have; see
            `LMMResult.predict`.
        unknown_segments : {"error", "missing"}
            What to do with rows of segments that were not in the data or have no fit: refuse them,
            or give NaN.

        Returns
        -------
        ndarray or Series (n,)
            A Series for pandas frames. NaN in rows with a missing value, of `by` too.

        Raises
        ------
        DataError
            Unknown segments or groups that are refused, unknown columns or levels of factors, or a
            result that was saved before predictions were kept.

        Examples
        --------
        >>> import lmmfast as lf
        >>> d = lf.datasets.sleepstudy().assign(half=lambda d: d["Subject"].cat.codes % 2)
        >>> fits = lf.lmm_by("Reaction ~ scale(Days) + (1 | Subject)", d, by="half")
        >>> fits.predict({"half": [0, 1], "Days": [5, 5]}).round(1).tolist()
        [295.1, 312.4]
        """
        from lmmfast.batch.by_predict import Fits, predict

        fits = Fits(self.segments, self.by, self._models(), self._records.failed)
        return predict(fits, newdata, level, new_levels, unknown_segments)

    def scorer(
        self, segment: Any, level: str = "conditional", new_levels: NewLevels = "population"
    ) -> Scorer:
        """Return what predicts rows of one segment over and over; see `LMMResult.scorer`.

        Parameters
        ----------
        segment : label
        level, new_levels
            As in `predict`.

        Returns
        -------
        Scorer

        Raises
        ------
        KeyError
            There is no such segment, or it has no fit.
        """
        from lmmfast.batch.by_models import without_effects
        from lmmfast.batch.by_predict import LEVELS
        from lmmfast.prediction.new_rows import NEW_LEVELS
        from lmmfast.prediction.scorer import Scorer

        check_choice("level", level, LEVELS)
        check_choice("new_levels", new_levels, NEW_LEVELS)
        position = self._known(segment)
        found = self._models().one(position)
        if found is None:
            raise KeyError(f"segment {segment!r} has no fit: {self._records.failed.get(position)}")
        return Scorer(
            found if level == "conditional" else without_effects(found), level, new_levels
        )

    def _models(self) -> SegmentModels:
        models = self._records.models
        if not models.shared and not models.alone and len(self._records.failed) < len(self):
            raise DataError(
                "this result was saved by a version of lmmfast that kept nothing to predict with: "
                "fit the segments anew"
            )
        return models

    def _known(self, segment: Any) -> int:
        position = self._position(segment)
        if position is None:
            names = ", ".join(self.by)
            raise KeyError(f"{segment!r} is no segment of {names!r}; see .segments")
        return position

    def _position(self, segment: object) -> int | None:
        from pandas.errors import InvalidIndexError

        try:
            position = self.segments.get_loc(segment)
        except (KeyError, TypeError, InvalidIndexError):
            return None
        return position if isinstance(position, int) else None

    def __getitem__(self, segment: Any) -> LMMResult:
        """Return `fit` of a segment."""
        return self.fit(segment)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to a file, which `lmmfast.load` reads; see `LMMResult.save`.

        Parameters
        ----------
        path : path
            A file of this name is replaced when the new one is whole.
        """
        from lmmfast.persist.files import save

        save(self, path)

    def __repr__(self) -> str:
        """Return the counts."""
        records = self._records
        boundary = sum(status.startswith("converged on") for status in records.status)
        n_converged, n_failed = int(records.converged.sum()), len(records.failed)
        names = ", ".join(self.by)
        counts = f"{n_converged} converged ({boundary} on the boundary)"
        counts += f", {len(self) - n_converged - n_failed} not converged, {n_failed} failed"
        return f"<LMMByResult {self.method}: {len(self)} segments of {names!r}; {counts}>"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without data."""
        return with_version({**self.__dict__, "_fitter": None, "_fits": OrderedDict()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(checked(state))

    def _frame(self, numbers: NamedColumns) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(numbers.columns, index=self.segments)

    def _series(self, values: NDArray[Any], name: str) -> pd.Series[Any]:
        import pandas as pd

        return pd.Series(values, index=self.segments, name=name)

    def _messages(self, messages: dict[int, str], name: str) -> pd.Series[str]:
        import pandas as pd

        positions = sorted(messages)
        index = self.segments.take(positions)
        texts = [messages[k] for k in positions]
        return pd.Series(texts, index=index, name=name, dtype=object)
