"""Distributions of likelihood-ratio statistics, also where a variance is on its boundary.

Self and Liang (1987), Journal of the American Statistical Association 82, 605-610; Stram and Lee
(1994), Biometrics 50, 1171-1177: with q correlated effects and one more, the statistic is a mixture
of chi-squared distributions with q and q + 1 degrees of freedom, half each. With several more the
weights depend on the information, and the distribution is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.inference.boundary import cone_test, tested_parameters
from lmmfast.inference.exact_rlrt import exact_p, why_not_exact
from lmmfast.inference.nesting import ZERO_VARIANCE
from lmmfast.resampling.likelihood_ratio import bootstrap_p
from lmmfast.resampling.seeds import count

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

TESTS = ("chisq", "mixture", "exact", "bootstrap")


@dataclass(frozen=True)
class Reference:
    """How p-values of likelihood-ratio statistics are found; see `lmmfast.compare`."""

    test: str = "chisq"
    n_sim: int = 10_000
    seed: Any = 1
    B: int = 1000

    def __post_init__(self) -> None:
        check_choice("test", self.test, TESTS)
        if not isinstance(self.n_sim, int | np.integer) or not 100 <= self.n_sim <= 10**8:
            raise DataError(f"n_sim={self.n_sim!r}: give a whole number from 100 to 10^8")
        count(self.B)

    def p_value(
        self, small: LMMResult, big: LMMResult, chisq: float, df: int, notes: list[str]
    ) -> tuple[float, list[str]]:
        """Return the p-value of a statistic, and notes on it.

        Parameters
        ----------
        notes : list of str
            Why the chi-squared distribution does not hold.
        """
        from scipy.special import chdtrc

        usual = float(chdtrc(df, chisq))
        if self.test == "chisq":
            return usual, notes
        others = [note for note in notes if note != ZERO_VARIANCE]
        if self.test == "bootstrap":
            p, error, left_out = bootstrap_p(small, big, chisq, self.B, self.seed)
            failed = f", {left_out} could not be fitted" if left_out else ""
            return p, [
                *others,
                f"bootstrap: {self.B:,} replicates, standard error {error:.2g}{failed}",
            ]
        if self.test == "exact":
            reason = why_not_exact(small, big)
            if not reason:
                p, error = exact_p(big, chisq, self.n_sim, self.seed)
                return p, [*others, f"exact: {self.n_sim:,} draws, standard error {error:.2g}"]
            notes = [*notes, f"chi-squared: {reason}"]
            return usual, notes
        if ZERO_VARIANCE not in notes:
            return usual, notes
        return self._mixture(small, big, chisq, usual, others)

    def _mixture(
        self, small: LMMResult, big: LMMResult, chisq: float, usual: float, others: list[str]
    ) -> tuple[float, list[str]]:
        """Chi-bar-squared: half and half where there is one variance more, else simulated."""
        from scipy.special import chdtrc

        tested = tested_parameters(small, big)
        if isinstance(tested, str):
            return usual, [ZERO_VARIANCE, *others, f"chi-squared: {tested}"]
        if tested.is_one_variance:
            q = tested.n_free
            both = (float(chdtrc(k, chisq)) if k else float(chisq <= 0.0) for k in (q, q + 1))
            return 0.5 * sum(both), [*others, f"half chi-squared({q}), half chi-squared({q + 1})"]
        try:
            cone = cone_test(small, big, tested)
        except (DataError, UnsupportedModelError) as error:
            return usual, [ZERO_VARIANCE, *others, f"chi-squared: {error}"]
        p, se = cone.p_value(chisq, self.n_sim, np.random.default_rng(self.seed))
        return p, [*others, f"chi-bar-squared: {self.n_sim:,} draws, standard error {se:.2g}"]
