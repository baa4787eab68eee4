"""Second derivatives of V by the parameters of a residual structure, from differences of totals.

tr(V^-1 V_kl) = d_l tr(V^-1 V_k) + tr(V^-1 V_k V^-1 V_l), and the same for the quadratic forms, so
first derivatives of existing totals are all that is needed: central differences with one Richardson
step, four passes a parameter, good to ten digits and more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmmfast.arrays import Array
from lmmfast.search.objective import Evaluation


@dataclass(frozen=True)
class SecondOrder:
    """What second derivatives add, by the K parameters of the totals; zeros for those of D.

    Attributes
    ----------
    places : range
        Which parameters are those of the residual structure.
    h : ndarray (K, K, p, p)
        G'X'V^-1 V_kl V^-1 X G.
    observed : ndarray (K, K)
        What the observed information has on top of that of a linear V.
    """

    places: range
    h: Array
    observed: Array


def second_order(
    evaluation: Evaluation, kappa: Array, steps: Array, at: Callable[[Array], Evaluation]
) -> SecondOrder:
    """Difference the totals by each parameter of the residual structure.

    Parameters
    ----------
    evaluation : Evaluation
        At the optimum, with ``kr``.
    kappa, steps : ndarray (n_kappa,)
        Where, and the steps of the differences.
    at : callable
        The evaluation at other kappa.
    """
    K, G, c = len(evaluation.totals.trace), evaluation.S_inv_root, evaluation.c
    places = range(K - len(kappa), K)
    p = len(G)
    quad2 = np.zeros((K, K, p + 1, p + 1))
    trace2 = np.zeros((K, K))
    kr = evaluation._kept(evaluation.totals.kr) if evaluation.totals.kr is not None else None
    for j, column in enumerate(places):
        by_trace, by_quad = _derivatives(kappa, j, steps[j], at)
        for k in places:
            trace2[k, column] = by_trace[k] + 2 * evaluation.totals.info[k, column]
            quad2[k, column] = by_quad[k]
            if kr is not None:
                quad2[k, column] += kr[k, column] + kr[column, k]
    trace2 = 0.5 * (trace2 + trace2.T)
    quad2 = 0.5 * (quad2 + quad2.swapaxes(0, 1))
    quad2 = 0.5 * (quad2 + quad2.swapaxes(-1, -2))
    h = G.T @ quad2[..., :-1, :-1] @ G
    if evaluation.problem.reml:
        trace2 = trace2 - np.trace(h, axis1=-2, axis2=-1)
    observed = 0.5 * (trace2 - (quad2 @ c) @ c / evaluation.sigma2)
    return SecondOrder(places, h, observed)


def _derivatives(
    kappa: Array, j: int, longest: float, at: Callable[[Array], Evaluation]
) -> tuple[Array, Array]:
    """Derivatives of traces (K,) and quadratic forms (K, p + 1, p + 1) by kappa_j."""
    found = []
    for step in (longest, longest / 2):
        moved = np.zeros(len(kappa))
        moved[j] = step
        low, high = at(kappa - moved), at(kappa + moved)
        found.append(
            (
                (high.totals.trace - low.totals.trace) / (2 * step),
                (high._quad - low._quad) / (2 * step),
            )
        )
    (trace, quad), (finer_trace, finer_quad) = found
    return (4 * finer_trace - trace) / 3, (4 * finer_quad - quad) / 3
