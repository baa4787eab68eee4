"""Responses of a model that is written down and not fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.data.tables import Table, open_table
from lmmfast.design.from_formula import FormulaDesign, write_out_dot
from lmmfast.errors import DataError
from lmmfast.fitting.given import model_at
from lmmfast.formula.parse import parse_formula
from lmmfast.residual.structure import ResidualStructure

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Name of the column that stands for the response.
RESPONSE = "simulated_response_"


def simulate(
    formula: str,
    data: Any,
    *,
    beta: Any,
    theta: Any,
    n: int = 1,
    seed: Any = None,
    groups: Any = None,
    residual: ResidualStructure | None = None,
    weights: Any = None,
    offset: Any = None,
    D: Any = None,
    context: Mapping[str, Any] | None = None,
) -> Array:
    """Draw responses from a model with given parameters, without a fit.

    Parameters
    ----------
    formula : str
        As of `lmm`. The response need not be a column of the data, and is not looked at.
    data : table
        What the model needs beside the response; without missing values.
    beta : sequence, mapping or Series (p,)
        Coefficients in the order of the columns of X, or by the names that ``fit.params`` has.
    theta : sequence, mapping or Series (n_theta,)
        Variance parameters in the order and by the names of ``fit.theta``.
    n : int
        Number of responses.
    seed : int, Generator or None
        As of ``numpy.random.default_rng``.
    groups, residual, weights, offset, D, context
        As of `lmm`.

    Returns
    -------
    ndarray (n_rows, n)
        In the order of the rows.

    Raises
    ------
    FormulaError, DataError
        As `lmm`; other names or another number of parameters, which the message lists; variances
        that are no covariance matrix; columns of X that depend on others.
    TooLargeError
        As `LMMResult.simulate`.

    Examples
    --------
    >>> import lmmfast as lf
    >>> d = {"t": [0.0, 1.0, 2.0] * 10, "id": [k // 3 for k in range(30)]}
    >>> theta = {"var(Intercept|id)": 1.0, "var(Residual)": 0.5}
    >>> lf.simulate("y ~ t + (1 | id)", d, beta=[1.0, 0.2], theta=theta, n=4, seed=1).shape
    (30, 4)
    """
    options = {
        "groups": groups,
        "residual": residual,
        "weights": weights,
        "offset": offset,
        "D": D,
        "context": context,
    }
    return given_model(formula, data, beta, theta, True, options).simulate(n, seed)


def given_model(
    formula: str, data: Any, beta: Any, theta: Any, reml: bool, options: Mapping[str, Any]
) -> LMMResult:
    """Return a model at given parameters; it can be simulated and refitted.

    Parameters
    ----------
    options : mapping
        groups, residual, weights, offset, D, context of `lmm`.
    """
    groups, residual = options.get("groups"), options.get("residual")
    parsed = parse_formula(formula, groups, residual is not None, options.get("context"))
    table = open_table(data)
    if RESPONSE in table.names:
        raise DataError(f"{RESPONSE!r} stands for the response: call this column otherwise")
    parsed = write_out_dot(parsed, table, options.get("weights"), options.get("offset"))
    y = np.random.default_rng(0).standard_normal(table.n_rows)
    with_y = Table(
        (*table.names, RESPONSE),
        table.n_rows,
        lambda name: y if name == RESPONSE else table.fetch(name),
        table.index,
    )
    rest = {name: value for name, value in options.items() if name not in ("groups", "context")}
    design = FormulaDesign(replace(parsed, response_term=RESPONSE), with_y, missing="raise", **rest)
    return model_at(design, beta, theta, reml)
