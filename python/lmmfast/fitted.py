"""The record of a fitted model: all that is known of it without its rows, in plain fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array

if TYPE_CHECKING:
    from lmmfast.covariance.random import Term
    from lmmfast.covariance.terms import BlockCovariance
    from lmmfast.data.text_labels import TextLabels
    from lmmfast.design.from_arrays import ArraySpec
    from lmmfast.fitting.redundancy import Redundancy
    from lmmfast.formula.spec import FormulaSpec
    from lmmfast.inference.totals import InferenceTotals
    from lmmfast.packing.basis import Basis
    from lmmfast.residual.place import KnownColumn
    from lmmfast.residual.structures import ResidualStructure
    from lmmfast.search.certificate import Certificate


@dataclass(frozen=True, eq=False)
class FittedFactor:
    """A grouping factor of a fit.

    Attributes
    ----------
    name : str
    columns : ndarray of int (q_f,)
        Columns of Z that are its effects.
    nested_in : list of str
        Factors that it is nested in, outermost first.
    n_groups : int
    sizes : tuple of (int, float, int)
        Smallest, mean and largest number of rows of a group.
    labels : ndarray or TextLabels (m_f,), or None
        None: not kept.
    effects : ndarray (m_f, q_f) or None
        Predictions of the random effects, in the order of ``labels``.
    """

    name: str
    columns: NDArray[np.intp]
    nested_in: list[str]
    n_groups: int
    sizes: tuple[int, float, int]
    labels: NDArray[Any] | TextLabels | None = None
    effects: Array | None = None


@dataclass(frozen=True, eq=False)
class WorkingOptimum:
    """Where the search ended, in the working basis.

    Attributes
    ----------
    phi : ndarray (n_params,)
        Search parameters.
    D, Lambda : ndarray (q, q)
        Relative to sigma2, and its root.
    unit : float
        The residual variance of the working basis on the user's scale, of weights of one there.
    c : ndarray (p_all + 1,)
        (-beta, 1) of the working residual, zero for columns that were dropped.
    constant : float
        What the log-likelihood has on the user's scale on top of that in the working basis.
    n_flat : int
        Directions in which the likelihood does not change.
    """

    phi: Array
    D: Array
    Lambda: Array
    unit: float
    c: Array
    constant: float
    n_flat: int


@dataclass(frozen=True, eq=False)
class FromRows:
    """Numbers that take the rows, kept so that conclusions can be drawn without them.

    Attributes
    ----------
    totals : InferenceTotals or None
        Derivatives that small-sample inference is made of.
    cov_working, lost : ndarray or None
        Covariance matrix of (natural parameters of D, kappa, sigma2), NaN where unknown; and the
        directions (n_lost, k) of which there is no information.
    mean_variances : dict or None
        Mean variance of a row by grouping factor, then of its residual.
    response_sum : int or None
        Checksum of the response, by which `lmmfast.compare` knows fits of the same rows.
    """

    totals: InferenceTotals | None = None
    cov_working: Array | None = None
    lost: Array | None = None
    mean_variances: dict[str, float] | None = None
    response_sum: int | None = None


@dataclass(frozen=True, eq=False)
class InferenceChoice:
    """How conclusions about beta are drawn: options of `LMMResult.inference`.

    Attributes
    ----------
    ddf, vcov : str
    information : str or None
    cov : ndarray (p, p) or None
        Covariance matrix of beta, where only the rows give it.
    df : ndarray (p,) or None
        Degrees of freedom of each coefficient, where only the rows give them.
    """

    ddf: str = "satterthwaite"
    vcov: str = "model"
    information: str | None = None
    cov: Array | None = None
    df: Array | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted linear mixed model without its rows.

    Attributes
    ----------
    spec : FormulaSpec or ArraySpec
        Makes the columns of new rows.
    terms : tuple of Term
        Random-effects terms.
    y_name, group_name : str
    method : {"REML", "ML"}
    structure : ResidualStructure or None
        Of the residuals; None: independent.
    covariance : BlockCovariance
        What D, and with a residual structure R, are by the search parameters.
    factors : tuple of FittedFactor
    nobs, n_dropped : int
        Rows used, and rows left out for missing values.
    missing_counts : dict
        Columns with missing values, and how many.
    keep : ndarray of int (p,)
        Columns of X that the fit kept.
    x_names : list of str (p,)
    dropped_columns, dropped_effects : list of str
        Columns of X that others determine; columns of Z that are zero in all rows.
    weighted : bool
    engine : str
    n_designs : int or None
        Distinct designs of clusters, where the engine shares work among them.
    beta : ndarray (p,)
    cov_beta : ndarray (p, p)
        (X'V^-1 X)^-1.
    D : ndarray (q, q)
    sigma2, llf : float
    theta : ndarray (n_theta,)
        Natural variance parameters.
    working : WorkingOptimum
    basis : Basis
    certificate : Certificate
    trace : list of dict
        Evaluations of the search.
    from_rows : FromRows
    redundancy : Redundancy or None
        What is known of parameters that the data cannot tell apart.
    identifiable : {"raise", "warn"}
    inference : InferenceChoice
    known_columns : dict of KnownColumn or None
        What new rows are placed by in the residual structure; None: not kept.
    """

    spec: FormulaSpec | ArraySpec
    terms: tuple[Term, ...]
    y_name: str
    group_name: str
    method: str
    structure: ResidualStructure | None
    covariance: BlockCovariance
    factors: tuple[FittedFactor, ...]
    nobs: int
    n_dropped: int
    missing_counts: dict[str, int]
    keep: NDArray[np.intp]
    x_names: list[str]
    dropped_columns: list[str]
    dropped_effects: list[str]
    weighted: bool
    engine: str
    n_designs: int | None
    beta: Array
    cov_beta: Array
    D: Array
    sigma2: float
    llf: float
    theta: Array
    working: WorkingOptimum
    basis: Basis
    certificate: Certificate
    trace: list[dict[str, Any]]
    from_rows: FromRows = field(default_factory=FromRows)
    redundancy: Redundancy | None = None
    identifiable: str = "raise"
    inference: InferenceChoice = field(default_factory=InferenceChoice)
    known_columns: dict[str, KnownColumn] | None = None
