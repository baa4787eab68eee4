"""Linear hypotheses about the fixed effects: what users write, and what the tests say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.inference.denominators import Denominators
from lmmfast.inference.wald import coefficient_table

if TYPE_CHECKING:
    import pandas as pd

#: Rows of L closer to a sum of the others depend on them, relative to the largest.
DEPENDENT = 1e-10


@dataclass(frozen=True)
class LinearTest:
    """The test of L beta = value.

    Attributes
    ----------
    statistic : float
        F; of one function the square of t.
    df_num, df_denom : float
        Its degrees of freedom.
    p_value : float
    frame : DataFrame
        A row for each function: ``estimate`` of L beta, ``null``, the value it is tested against,
        ``std_error``, ``statistic`` (t), ``df``, ``p_value``, ``conf_low``, ``conf_high``.
    L : ndarray (k, p)
    """

    statistic: float
    df_num: int
    df_denom: float
    p_value: float
    frame: pd.DataFrame
    L: Array

    def __str__(self) -> str:
        """Return the functions one by one, and the test of all together."""
        joint = (
            f"F({self.df_num}, {self.df_denom:.6g}) = {self.statistic:.6g}, p = {self.p_value:.4g}"
        )
        return f"{self.frame.to_string()}\n{joint}"

    __repr__ = __str__


def read_hypothesis(hypothesis: Any, names: Sequence[str]) -> tuple[Array, Array]:
    """Return L (k, p) and values (k,) of the hypothesis L beta = values.

    Raises
    ------
    DataError
        Unknown names, a matrix of another width, no rows, values that are not finite.
    """
    p = len(names)
    if isinstance(hypothesis, str):
        L, values = _read_text(hypothesis, names)
    elif isinstance(hypothesis, Mapping):
        _refuse_unknown(list(hypothesis), names)
        L, values = np.array([[float(hypothesis.get(name, 0.0)) for name in names]]), np.zeros(1)
    else:
        L = np.atleast_2d(np.asarray(hypothesis, dtype=float))
        values = np.zeros(len(L))
    if L.ndim != 2 or L.shape[1] != p or not L.size:
        raise DataError(
            f"the hypothesis has the shape {L.shape}: rows of {p} weights are needed, one for each "
            f"of {', '.join(names)}"
        )
    if not np.isfinite(L).all():
        raise DataError("the weights of the hypothesis are not all finite")
    sizes = np.linalg.norm(L, axis=1)
    if not (sizes > 0).all():
        raise DataError(f"row {int(np.argmin(sizes))} of the hypothesis has only zeros")
    singular = np.linalg.svd(L / sizes[:, None], compute_uv=False)
    if len(L) > p or singular[-1] <= DEPENDENT * singular[0]:
        raise DataError("the rows of the hypothesis depend on each other: leave some out")
    return L, values


def _read_text(text: str, names: Sequence[str]) -> tuple[Array, Array]:
    """Replace names, which may hold any sign, by symbols, and let formulaic do the algebra."""
    from formulaic.errors import FormulaicError
    from formulaic.utils.constraints import LinearConstraints

    symbols = {name: f"coefficient{k}_" for k, name in enumerate(names)}
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w.]){re.escape(name)}(?![\w.])" for name in longest_first)
    symbolic = re.sub(pattern, lambda match: symbols[match[0]], text)
    try:
        found = LinearConstraints.from_spec(symbolic, variable_names=list(symbols.values()))
    except (FormulaicError, ValueError, KeyError, SyntaxError, TypeError) as error:
        raise DataError(
            f"{text!r} is no linear hypothesis: write names of coefficients as in 'a = 0, b = c'; "
            f"there are {', '.join(names)}"
        ) from error
    L = np.asarray(found.constraint_matrix, dtype=float)
    return L, np.asarray(found.constraint_values, dtype=float)


def _refuse_unknown(written: list[Any], names: Sequence[str]) -> None:
    unknown = [name for name in written if name not in names]
    if unknown:
        raise DataError(f"no coefficient is called {unknown[0]!r}: there are {', '.join(names)}")


def linear_test(
    method: Denominators, beta: Array, L: Array, values: Array, alpha: float
) -> LinearTest:
    """Test L beta = values, together and one by one."""
    import pandas as pd

    difference = L @ beta - values
    errors = np.sqrt(np.einsum("ki,ij,kj->k", L, method.cov, L))
    df = np.array([method.df(row) for row in L])
    frame = coefficient_table(pd.Series(difference), pd.Series(errors), alpha, df)
    frame[["estimate", "conf_low", "conf_high"]] += values[:, None]
    frame.insert(1, "null", values)
    found = method.test(L, difference)
    return LinearTest(found.statistic, found.df_num, found.df_denom, found.p_value, frame, L)
