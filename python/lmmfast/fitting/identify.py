"""Can the data tell the parameters apart? Checks before the search, with names in the messages."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance, natural_names, terms_without
from lmmfast.design.design import Design
from lmmfast.errors import DataError, EmptyEffectsError, NotIdentifiableError
from lmmfast.grouping.clusters import Clusters
from lmmfast.grouping.levels import Levels
from lmmfast.search.objective import Evaluation
from lmmfast.search.scoring import Point

Indices = NDArray[np.intp]

# Smallest eigenvalue of the information, as a correlation matrix, that counts as information.
SINGULAR = 1e-10


def check_clusters(design: Design, clusters: Clusters) -> None:
    """Refuse a single cluster.

    Raises
    ------
    NotIdentifiableError
    """
    group = design.group_name
    if clusters.m == 1:
        raise refusal(
            design,
            f"{group!r} has a single group ({clusters.labels[0]}): variances between groups need "
            "several; fit a linear model instead, or check the grouping column",
        )


def refusal(design: Design, text: str) -> NotIdentifiableError:
    """Make the error, which says what names that nobody gave stand for, if the text has some."""
    words = set(re.findall(r"\w+", text))
    known = [f"{name} is {what}" for name, what in design.legend.items() if name in words]
    return NotIdentifiableError(f"{text} ({', '.join(known)})" if known else text)


def check_levels(design: Design, levels: Levels) -> None:
    """Refuse a grouping factor, among several, with a single level.

    Raises
    ------
    NotIdentifiableError
    """
    for name, labels in zip(levels.names, levels.labels, strict=True):
        if len(labels) == 1:
            raise refusal(
                design,
                f"{name!r} has a single group ({labels[0]}): variances between groups need "
                "several; leave its random effects out, or check the grouping column",
            )


def check_response(design: Design, gram: Array, keep: Indices, y_size: float) -> None:
    """Refuse a response that the fixed effects fit exactly.

    Parameters
    ----------
    gram : ndarray (p + 1, p + 1)
        Cross-products of [X y].
    keep : ndarray of int
        Columns of X that are linearly independent.
    y_size : float
        Largest absolute response in the unit of the working residual.

    Raises
    ------
    DataError
    """
    rest, _ = _residual_sum(gram, gram, keep)
    spread = np.sqrt(max(rest, 0.0) / design.n_obs)
    if spread > 8 * np.finfo(float).eps * y_size:
        return
    raise DataError(
        f"the response {design.y_name!r} is constant or fitted exactly by the fixed effects: there "
        "is no variation left to model"
    )


def check_within(
    design: Design, gram: Array, perp: Array, keep: Indices, rank_Z: int, reml: bool
) -> None:
    """Refuse a response that fixed and random effects together fit exactly.

    Parameters
    ----------
    gram, perp : ndarray (p + 1, p + 1)
        Cross-products of [X y], whole and beyond the span of Z.
    keep : ndarray of int
    rank_Z : int
        Sum of the ranks of the Z_i.

    Raises
    ------
    NotIdentifiableError
    """
    total, _ = _residual_sum(gram, gram, keep)
    rest, rank = _residual_sum(perp, gram, keep)
    rows_left = design.n_obs - rank_Z - rank
    rounding = 64 * np.finfo(float).eps * perp[-1, -1]
    exact = rows_left > 0 and rest <= max(1e-24 * total, rounding)
    # With ML the fixed effects may use up all that the random effects leave, and nothing is left.
    if exact or (rows_left == 0 and rank > 0 and not reml):
        raise refusal(
            design,
            f"fixed and random effects together can fit {design.y_name!r} exactly: the residual "
            "variance goes to zero and the likelihood has no maximum; leave out random effects of "
            f"{design.group_name!r}, or fixed effects",
        )


def _residual_sum(products: Array, gram: Array, keep: Indices) -> tuple[float, int]:
    """Residual sum of squares of y on X from their cross-products, and the rank of X there."""
    rows = np.ix_([*keep, -1], [*keep, -1])
    sums, rank = residual_sums(products[rows], gram[rows], len(keep))
    return float(sums[0]), rank


def residual_sums(products: Array, gram: Array, p: int) -> tuple[Array, int]:
    """Residual sums of squares (r,) of responses on X, and the rank of X there.

    Parameters
    ----------
    products, gram : ndarray (p + r, p + r)
        Cross-products of [X Y]; those of gram are whole and scale the columns. Products of two
        different responses are not used.
    """
    scale = np.sqrt(np.diag(gram)[:p])
    X, Xy = products[:p, :p], products[:p, p:]
    values, vectors = np.linalg.eigh(X / np.outer(scale, scale))
    used = values > 1e-12
    coefficients = vectors[:, used].T @ (Xy / scale[:, None])
    explained = np.sum(coefficients**2 / values[used][:, None], axis=0)
    return np.diag(products)[p:] - explained, int(used.sum())


def check_information(
    point: Point,
    covariance: BlockCovariance,
    design: Design,
    m: int,
    identifiable: str = "raise",
) -> int:
    """Refuse variance parameters whose expected information is singular where the search begins.

    Parameters
    ----------
    identifiable : {"raise", "warn"}
        With "warn" they are not refused but counted.

    Returns
    -------
    int
        Number of directions without information.

    Raises
    ------
    NotIdentifiableError
        Names the parameters that are confounded.
    """
    names = [*natural_names(design.terms), "var(Residual)"]
    return check_joint_information(point, covariance, design, m, names, identifiable)


def _check_effects(design: Design) -> None:
    """Refuse columns of Z that are zero in all rows."""
    columns = design.empty_effects()
    if columns:
        dropped = ", ".join(terms_without(design.terms, columns)[1])
        text = f"the data say nothing about the effects {dropped}: their columns of Z are zero"
        raise EmptyEffectsError(f"{text} in all rows; leave them out", columns)


def check_joint_information(
    point: Point,
    covariance: BlockCovariance,
    design: Design,
    m: int,
    names: list[str],
    identifiable: str = "raise",
) -> int:
    """As `check_information`, with parameters of the residuals between those of D and sigma2.

    Parameters
    ----------
    m : int
        Number of clusters.
    names : list of str
        What each parameter is about: of D, of the residuals, sigma2.
    identifiable : {"raise", "warn"}

    Returns
    -------
    int

    Raises
    ------
    NotIdentifiableError
    """
    D, evaluation = point.D, point.evaluation
    C = covariance.natural_jacobian(D)
    n, K = C.shape
    taken = np.append(_taken_by_fixed_effects(evaluation, C, names), [False] * (len(names) - n))
    if covariance.longest_steps is not None:
        # That of ML is singular where parameters are confounded; that of REML is not exact here.
        evaluation = Evaluation(replace(evaluation.problem, reml=False), evaluation.totals)
    joint = evaluation.joint_info(D[covariance.pairs])
    J = np.eye(len(joint))
    J[:n, :K] = C
    J = np.delete(J, range(n, K), axis=0)
    info = J @ joint @ J.T
    info[taken], info[:, taken] = 0.0, 0.0
    size = np.diag(info)
    largest = float(np.max(size))
    nothing = size <= 1e-14 * largest
    scale = np.sqrt(np.where(nothing, largest, size))
    values, vectors = np.linalg.eigh(info / np.outer(scale, scale))
    n_flat = int(np.sum(values <= SINGULAR))
    if nothing.any():
        _check_effects(design)
    if n_flat == 0 or identifiable == "warn":
        return n_flat
    if nothing.any():
        empty = [name for name, none in zip(names, nothing, strict=True) if none]
        by_X = {name for name, none in zip(names, taken, strict=True) if none}
        raise refusal(design, _nothing_known(empty, set(names[n:]), by_X))
    confounded = [
        name for name, weight in zip(names, vectors[:, 0], strict=True) if abs(weight) > 0.05
    ]
    raise refusal(design, _not_apart(confounded, design, m))


def _taken_by_fixed_effects(
    evaluation: Evaluation, C: Array, names: list[str]
) -> NDArray[np.bool_]:
    """Variances of random effects that REML knows nothing of: Z_k is in the span of X, (n,).

    tr(P dV_k) is zero then, and only then, since dV_k is positive semidefinite.

    Parameters
    ----------
    C : ndarray (n, K)
        Derivatives of vech(D) by the natural parameters.
    names : list of str
        Of the parameters.
    """
    if not evaluation.problem.reml:
        return np.zeros(len(C), dtype=bool)
    K = C.shape[1]
    with_X, without_X = C @ evaluation.trace[:K], C @ evaluation.totals.trace[:K]
    variances = np.array([name.startswith("var") for name in names[: len(C)]], dtype=bool)
    return np.asarray(variances & (without_X > 0) & (with_X <= SINGULAR * without_X))


def _nothing_known(empty: list[str], of_residuals: set[str], by_X: set[str]) -> str:
    """Say that there is no information about parameters.

    Parameters
    ----------
    by_X : set of str
        Parameters of D that REML knows nothing about because of the fixed effects.
    """
    name = next((name for name in empty if name.startswith("var")), empty[0])
    if name in by_X:
        return (
            f"the data say nothing about {name}: the fixed effects already explain all "
            "differences between its groups, and REML has nothing left of them; leave this "
            "random effect out, or the fixed effects that determine its groups"
        )
    reason = (
        "no cluster has two rows that it relates"
        if name in of_residuals
        else "its column of Z is zero in (nearly) all rows"
        if name.startswith("var")
        else "the two effects never occur together in a group"
    )
    return f"the data say nothing about {name}: {reason}"


def _not_apart(confounded: list[str], design: Design, m: int) -> str:
    """Say that parameters cannot be told apart, and why that may be so."""
    names = ", ".join(dict.fromkeys(confounded))
    if m == design.n_obs:
        return (
            f"every row is its own group of {design.group_name!r} ({m} groups, "
            f"{design.n_obs} rows): {names} cannot be told apart; group by something that repeats"
        )
    if len(design.factor_names) > 1:
        return (
            f"the data cannot tell {names} apart: too few rows in each level, grouping factors "
            "that split the rows alike, or columns of a term that determine each other; leave one "
            "of them out"
        )
    if design.residual is None:
        why = (
            "columns of a random-effects term determine each other; leave a random effect out or "
            "choose a simpler covariance structure"
        )
    elif design.terms:
        why = (
            f"random effects and {design.residual} describe the same covariances; leave one of "
            "them out or choose a simpler structure"
        )
    else:
        why = f"{design.residual} has more parameters than they show; choose a simpler structure"
    return (
        f"the data cannot tell {names} apart: {design.group_name!r} has too few rows per group, or "
        f"{why}"
    )
