"""Choose the engine that factorises V: by the model, or as the user says, if it can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lmmfast.arrays import Array
from lmmfast.engines.dense import DenseEngine
from lmmfast.engines.engine import LevelsEngine, ResidualEngine, Working
from lmmfast.engines.markov import MarkovEngine, suits_markov
from lmmfast.engines.reference import ReferenceEngine
from lmmfast.engines.reference_levels import LevelsReferenceEngine
from lmmfast.errors import UnsupportedModelError
from lmmfast.grouping.levels import Levels
from lmmfast.limits import check_reference
from lmmfast.residual.model import ResidualModel

ENGINES = ("auto", "moments", "dense", "markov", "nested", "crossed", "reference")


def check_engine_of_one_factor(wanted: str) -> None:
    """Refuse engines that are not for independent residuals within one grouping factor.

    Raises
    ------
    UnsupportedModelError
    """
    if wanted in ("auto", "moments", "reference"):
        return
    kind = "residual structures: give residual=, or"
    if wanted in ("nested", "crossed"):
        kind = "several grouping factors:"
    raise UnsupportedModelError(f"engine={wanted!r} is for {kind} leave engine= out")


def engine_of_structure(
    A: Array, Z: Array, weights: Array | None, model: ResidualModel, wanted: str, n_threads: int
) -> ResidualEngine:
    """Choose the engine of a residual structure within one factor, by the size of the clusters.

    Parameters
    ----------
    A, Z, weights, model, n_threads
        See `lmmfast.engines.dense.DenseEngine`.
    wanted : str
        One of `ENGINES`.

    Raises
    ------
    UnsupportedModelError
        The engine asked for does not know the structure.
    TooLargeError
        There is not enough memory or time for it.
    """
    if wanted == "reference":
        return ReferenceEngine(A, Z, weights, model.ptr, model)
    if wanted == "moments":
        raise UnsupportedModelError(
            f"engine='moments' is for independent residuals, not for {model.structure}: choose "
            "'auto' or 'dense'"
        )
    markov = suits_markov(model)
    if wanted == "markov" and markov is None:
        raise UnsupportedModelError(
            f"engine='markov' is for AR1 and for OU and SpatialExponential in one coordinate, not "
            f"for {model.structure}"
        )
    if wanted == "markov" or (wanted == "auto" and markov):
        return MarkovEngine(A, Z, weights, model, n_threads)
    return DenseEngine(A, Z, weights, model, n_threads)


def engine_of_factors(
    levels: Levels, working: Working, wanted: str, n_threads: int
) -> LevelsEngine:
    """Choose the engine of several grouping factors: by whether they are nested.

    Raises
    ------
    UnsupportedModelError
        The engine asked for cannot fit the model.
    TooLargeError
        There is not enough memory for it.
    """
    if wanted == "reference":
        check_reference(levels.n, sum(len(columns) for columns in levels.columns))
        A, Z, weights = working(slice(0, levels.n))
        return LevelsReferenceEngine(A, Z, weights, levels)
    if wanted in ("moments", "dense", "markov"):
        raise UnsupportedModelError(
            f"engine={wanted!r} is for a single grouping factor, and there are "
            f"{', '.join(map(repr, levels.names))}: choose 'auto', 'nested' or 'crossed'"
        )
    if wanted != "crossed" and levels.chain is not None:
        from lmmfast.engines.nested import build_nested

        return build_nested(levels, working, n_threads)
    if wanted == "nested":
        raise UnsupportedModelError(
            f"engine='nested' is for factors of which each is nested in the one before, but "
            f"{', '.join(map(repr, levels.names))} are crossed: choose 'auto' or 'crossed'"
        )
    from lmmfast.engines.crossed import build_crossed

    return build_crossed(levels, working, n_threads)


def engine_of_nested_structure(
    rows: tuple[Array, Array, Array | None],
    working: Working,
    levels: Levels,
    model: ResidualModel,
    wanted: str,
    n_threads: int,
) -> Any:
    """Choose the engine of nested factors with a residual structure within the innermost.

    Parameters
    ----------
    rows : tuple
        A, Z and weights in the order of the model, for the reference engine.
    working : callable
        Rows of the design -> the same.
    levels : Levels
        In the order of the rows of the design.

    Raises
    ------
    UnsupportedModelError
        The engine asked for cannot fit the model.
    """
    if wanted == "reference":
        codes = tuple(codes[model.rows] for codes in levels.codes)
        residuals = ReferenceEngine(*rows, model.ptr, model)
        return LevelsReferenceEngine(*rows, replace(levels, codes=codes), residuals)
    if wanted not in ("auto", "nested", "dense", "markov"):
        raise UnsupportedModelError(
            f"engine={wanted!r} does not know {model.structure} within nested factors: choose "
            "'auto', 'dense' or 'markov'"
        )
    from lmmfast.engines.nested_residual import build_nested_residual

    innermost = "auto" if wanted == "nested" else wanted
    return build_nested_residual(levels, working, model, n_threads, engine=innermost)
