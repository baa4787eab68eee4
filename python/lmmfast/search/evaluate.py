"""From parameters to an evaluation: the passes over the clusters that it takes."""

from __future__ import annotations

from lmmfast.arrays import Array
from lmmfast.engines.engine import Engine
from lmmfast.search.objective import Evaluation, Problem


def evaluate(problem: Problem, engine: Engine, Lambda: Array, second_order: bool) -> Evaluation:
    """Evaluate at Ddot = Lambda Lambda', with second-order sums or without.

    An engine that contracts them takes a second pass, in which they are seen through the estimates
    of the first: of K^2 p^2 sums K^2 are wanted.

    Raises
    ------
    ConvergenceError
        There is no likelihood here.
    """
    contracts = second_order and engine.traits.contracts
    totals = engine.totals(Lambda, with_kr=second_order and not contracts)
    evaluation = Evaluation(problem, totals)
    if contracts:
        evaluation.contracted = engine.contracted(Lambda, evaluation.contractions)
    return evaluation
