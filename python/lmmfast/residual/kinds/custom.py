"""A correlation of a user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lmmfast.residual.signatures import written
from lmmfast.residual.structure import Correlation, CustomFunction, ResidualStructure, Source


class CustomCorrelation(ResidualStructure):
    """A correlation of your own, evaluated once for each distinct pattern of its columns.

    Parameters
    ----------
    *cols : str or array (n,)
        Columns of numbers that the correlation depends on.
    function : callable
        ``function(psi, values)`` with parameters psi (K,), free of bounds, and values (n_i, k)
        returns the correlation matrix (n_i, n_i) and its derivatives (K, n_i, n_i).
    start : sequence of float
        Where the search begins; its length is K.
    names : sequence of str, optional
        Names of the parameters, which are reported as they are.
    nugget : bool
        Uncorrelated variance on top.

    Examples
    --------
    >>> import numpy as np, lmmfast as lf
    >>> def cauchy(psi, values):
    ...     d = np.abs(values - values.T)
    ...     a = (d / np.exp(psi[0])) ** 2
    ...     return 1 / (1 + a), (2 * a / (1 + a) ** 2)[None]
    >>> lf.CustomCorrelation("t", function=cauchy, start=[0.0], names=["log_range"])
    CustomCorrelation('t', function=cauchy, start=[0.0], names=['log_range'])
    """

    def __init__(
        self,
        *cols: Source,
        function: Callable[[Any, Any], tuple[Any, Any]],
        start: Sequence[float],
        names: Sequence[str] | None = None,
        nugget: bool = False,
    ) -> None:
        first = tuple(float(value) for value in start)
        chosen = tuple(names) if names is not None else tuple(f"psi{k}" for k in range(len(first)))
        if not cols or not first:
            raise ValueError("CustomCorrelation needs at least one column and one parameter")
        if len(chosen) != len(first):
            raise ValueError(f"{len(chosen)} names for {len(first)} parameters")
        super().__init__(
            Correlation(
                "custom",
                "coordinates",
                tuple(cols),
                nugget=bool(nugget),
                label="Custom",
                custom=CustomFunction(function, chosen, first),
            ),
            (),
            written(
                "CustomCorrelation",
                cols,
                function=function,
                start=list(first),
                names=None if names is None else list(chosen),
                nugget=nugget,
            ),
        )
