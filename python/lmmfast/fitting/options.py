"""Settings of a fit that do not belong to the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmmfast.engines.choose import ENGINES
from lmmfast.errors import (
    DataError,
)
from lmmfast.progress import Reporter, Stage

#: More points to start from than anybody waits for.
MOST_STARTS = 10_000


@dataclass(frozen=True)
class Options:
    """Settings of a fit that do not belong to the data; see `lmm`."""

    reml: bool = True
    rank_deficient: str = "drop"
    engine: str = "auto"
    start: Any = None
    n_jobs: int | None = None
    max_iter: int = 200
    verbose: int = 0
    callback: Callable[[dict[str, Any]], None] | None = None
    n_starts: int | None = None
    identifiable: str = "raise"
    reporter: Reporter = field(default_factory=Reporter)

    def __post_init__(self) -> None:
        if self.identifiable not in ("raise", "warn"):
            raise DataError(f"identifiable={self.identifiable!r}: choose 'raise' or 'warn'")
        if self.rank_deficient not in ("drop", "raise"):
            raise DataError(f"rank_deficient={self.rank_deficient!r}: choose 'drop' or 'raise'")
        if self.engine not in ENGINES:
            raise DataError(f"engine={self.engine!r}: choose one of {', '.join(ENGINES)}")
        if not isinstance(self.reml, bool | np.bool_):
            raise DataError(f"reml={self.reml!r}: choose True (REML) or False (ML)")
        if not isinstance(self.max_iter, int | np.integer) or self.max_iter < 1:
            raise DataError(f"max_iter={self.max_iter!r}: give a positive whole number")
        wanted = self.n_starts
        if wanted is not None and (
            not isinstance(wanted, int | np.integer) or not 1 <= wanted <= MOST_STARTS
        ):
            raise DataError(
                f"n_starts={wanted!r}: give a positive whole number up to {MOST_STARTS:,}, or None"
            )
        if self.callback is not None and not callable(self.callback):
            raise DataError(f"callback={self.callback!r} must be a function of the trace entry")
        if not isinstance(self.verbose, int | np.integer | np.bool_):
            raise DataError(f"verbose={self.verbose!r}: choose 0 or 1")


def evaluation_callback(
    options: Options, stage: Stage | None = None
) -> Callable[[dict[str, Any]], None] | None:
    """Report each evaluation to the user as asked."""
    watched = stage is not None and options.reporter.listens
    if not options.verbose and not watched:
        return options.callback

    def report(entry: dict[str, Any]) -> None:
        if options.verbose:
            print(
                f"{entry['evaluation']:3d}  {entry['step']:<8s} llf {entry['llf']:.10g}"
                f"  decrement {entry['decrement']:.3g}"
            )
        if watched and stage is not None:
            stage.advance(1)
        if options.callback is not None:
            options.callback(entry)

    return report
