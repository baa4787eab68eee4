"""The parametric bootstrap of a fit.

Efron and Tibshirani (1993), An Introduction to the Bootstrap. Replicates are drawn from the fitted
model and fitted as the data were: from moments where the fit has them, else row by row. Each has a
generator of its own, so that a run that is continued is the longer run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._threads import n_threads
from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.errors import (
    ConvergenceError,
    ConvergenceWarning,
    DataError,
    TooLargeError,
    UnsupportedModelError,
)
from lmmfast.inference.wald import normal_quantile
from lmmfast.limits import memory_limit
from lmmfast.resampling.from_moments import has_moments, moments_model, named
from lmmfast.resampling.from_rows import refits
from lmmfast.resampling.numbers import Numbers
from lmmfast.resampling.quantiles import column_quantiles
from lmmfast.resampling.seeds import count, entropy_of

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

METHODS = ("auto", "moments", "rows")
KINDS = ("percentile", "basic", "normal")


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Replicates of a fit, and what they say.

    Attributes
    ----------
    names : list of str
        Of the numbers: coefficients, ``sd(…)`` and ``cor(…)`` of random effects, ``theta``; or
        those that the statistic gives.
    estimate : Series (k,)
        Of the fit.
    replicates : ndarray (B, k)
        NaN where a replicate could not be fitted; a correlation with a variance of zero is NaN too.
    status : ndarray of str (B,)
        How each replicate's search ended. Those on the boundary are answers like others.
    method : {"moments", "rows"}
    seed : int
        What ``more`` goes on with, and a run of the same seed begins with.
    """

    names: list[str]
    estimate: pd.Series[float]
    replicates: Array = field(repr=False)
    status: NDArray[Any] = field(repr=False)
    method: str
    seed: int
    _fit: LMMResult = field(repr=False)
    _numbers: Numbers = field(repr=False)

    @property
    def B(self) -> int:
        """Number of replicates, those that could not be fitted among them."""
        return len(self.replicates)

    @property
    def n_failed(self) -> int:
        """Number of replicates that could not be fitted, or whose search has no certified end."""
        return int(sum(not text.startswith("converged") for text in self.status))

    @property
    def se(self) -> pd.Series[float]:
        """Standard errors (k,): standard deviations of the replicates."""
        return self.table()["std_error"]

    @property
    def bias(self) -> pd.Series[float]:
        """Means of the replicates less the estimates (k,)."""
        return self.table()["bias"]

    def table(self) -> pd.DataFrame:
        """Return estimate, bias, std_error, the Monte Carlo errors of these two, and n.

        ``n`` is the number of replicates that have the number. Errors: the standard deviation over
        the root of n, and of a standard deviation by its fourth moment.
        """
        import pandas as pd

        rows = []
        for value, column in zip(self.estimate, self.replicates.T, strict=True):
            x = column[np.isfinite(column)]
            n = len(x)
            sd = float(x.std(ddof=1)) if n > 1 else np.nan
            mean = float(x.mean()) if n else np.nan
            fourth = float(((x - mean) ** 4).mean()) if n else np.nan
            spread = np.sqrt(max(fourth - sd**4, 0.0) / n) / (2 * sd) if n > 1 and sd else np.nan
            error = sd / np.sqrt(n) if n else np.nan
            rows.append((value, mean - value, sd, error, spread, n))
        columns = ["estimate", "bias", "std_error", "mc_error_bias", "mc_error_std_error", "n"]
        return pd.DataFrame(rows, index=self.names, columns=columns)

    def conf_int(self, alpha: float = 0.05, kind: str = "percentile") -> pd.DataFrame:
        """Return intervals with the Monte Carlo errors of their ends.

        Parameters
        ----------
        alpha : float
            One minus the level.
        kind : {"percentile", "basic", "normal"}
            Quantiles of the replicates; these reflected at the estimate; or the estimate less the
            bias, plus and minus standard errors times the quantile of the normal distribution.

        Returns
        -------
        DataFrame
            ``estimate``, ``conf_low``, ``conf_high``, ``mc_error_low``, ``mc_error_high``.

        Raises
        ------
        ValueError
            Another kind, or an alpha that is not between 0 and 0.5.
        """
        import pandas as pd

        check_choice("kind", kind, KINDS)
        z = normal_quantile(alpha)
        value = np.asarray(self.estimate, dtype=np.float64)
        if kind == "normal":
            table = self.table()
            middle, sd = value - table["bias"].to_numpy(), table["std_error"].to_numpy()
            error = np.hypot(
                table["mc_error_bias"].to_numpy(), z * table["mc_error_std_error"].to_numpy()
            )
            low, high, low_error, high_error = middle - z * sd, middle + z * sd, error, error
        else:
            low, low_error = column_quantiles(self.replicates, alpha / 2)
            high, high_error = column_quantiles(self.replicates, 1 - alpha / 2)
            if kind == "basic":
                low, high = 2 * value - high, 2 * value - low
                low_error, high_error = high_error, low_error
        columns = {
            "estimate": value,
            "conf_low": low,
            "conf_high": high,
            "mc_error_low": low_error,
            "mc_error_high": high_error,
        }
        return pd.DataFrame(columns, index=self.names)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each replicate: its numbers and its status."""
        import pandas as pd

        frame = pd.DataFrame(self.replicates, columns=self.names)
        frame["status"] = self.status
        return frame.rename_axis("replicate")

    def more(self, B: int) -> Bootstrap:
        """Return these replicates and B more: the same ones as a run of all of them has.

        Raises
        ------
        DataError
            The fit holds no data any more (after pickling), or B is no positive whole number.
        """
        first = self.B
        numbers = np.arange(first, first + count(B))
        made, status = _replicates(self._fit, self._numbers, self.method, self.seed, numbers)
        return replace(
            self,
            replicates=np.vstack([self.replicates, made]),
            status=np.concatenate([self.status, status]),
        )

    def __repr__(self) -> str:
        """Return one line."""
        failed = f", {self.n_failed} without a fit" if self.n_failed else ""
        what = f"{len(self.names)} numbers"
        return f"<Bootstrap of {self.B} replicates from {self.method}{failed}: {what}>"


def bootstrap(
    fit: LMMResult, B: int, statistic: Callable[[Any], Any] | None, seed: Any, method: str
) -> Bootstrap:
    """Draw and fit replicates; see `LMMResult.bootstrap`."""
    import pandas as pd

    check_choice("method", method, METHODS)
    B, entropy = count(B), entropy_of(seed)
    if statistic is not None and not callable(statistic):
        raise DataError(f"statistic={statistic!r} must be a function of a fit")
    if not fit.converged:
        raise ConvergenceError("the fit has not converged: there is no estimate to simulate from")
    fit._need(fit._engine, "replicates")
    if method == "moments" and not has_moments(fit):
        raise UnsupportedModelError(
            "replicates from moments are for one grouping factor, independent residuals and "
            "structures of D that the core knows: pass method='rows'"
        )
    if method == "auto":
        method = "moments" if has_moments(fit) else "rows"
    wanted = Numbers(fit, statistic)
    if 32 * B * max(len(wanted.names), 1) > memory_limit():
        raise TooLargeError(f"{B:,} replicates take more memory than there is: draw fewer")
    made, status = _replicates(fit, wanted, method, entropy, np.arange(B))
    result = Bootstrap(
        names=wanted.names,
        estimate=pd.Series(wanted.estimate, index=wanted.names),
        replicates=made,
        status=status,
        method=method,
        seed=entropy,
        _fit=fit,
        _numbers=wanted,
    )
    if result.n_failed:
        warnings.warn(
            f"{result.n_failed} of {result.B} replicates could not be fitted, or did not converge: "
            "they are left out; see .status",
            ConvergenceWarning,
            stacklevel=3,
        )
    return result


def _replicates(
    fit: LMMResult, wanted: Numbers, method: str, entropy: int, numbers: NDArray[np.int64]
) -> tuple[Array, NDArray[Any]]:
    """Numbers (B, k) of replicates, and how their searches ended."""
    if method == "moments":
        model = moments_model(fit, n_threads(getattr(fit._engine, "n_threads", None)))
        fits = named(model.replicates(entropy, [int(k) for k in numbers]), fit, numbers)
        made, status = wanted.of_fits(fits), fits.status
    else:
        made = np.full((len(numbers), len(wanted.names)), np.nan)
        status = np.full(len(numbers), "", dtype=object)
        for k, (new, text) in enumerate(refits(fit, entropy, [(int(i),) for i in numbers])):
            status[k] = text
            if new is not None and new.converged:
                made[k] = wanted.of_fit(new)
    good = np.array([str(text).startswith("converged") for text in status], dtype=bool)
    made[~good] = np.nan
    return made, status
