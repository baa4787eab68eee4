"""What a fit is doing: stages, told to a callback, a bar or the log while they run."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

from lmmfast.errors import DataError

logger = logging.getLogger("lmmfast")

#: Called with a dict: stage, done, of (or None), unit, seconds, ended.
Listener: TypeAlias = Callable[[dict[str, Any]], None]


class Reporter:
    """Tells somebody of stages; the log hears of each when it ends.

    Parameters
    ----------
    progress : callable or bool, optional
        A function of a dict; True: bars by tqdm if that is installed, else lines on the standard
        error.
    log : bool
        Write a record of each stage.

    Raises
    ------
    DataError
        It is neither.
    """

    def __init__(self, progress: Listener | bool | None = None, log: bool = True) -> None:
        self.log = log
        if progress is True:
            self.listener: Listener | None = _bars()
        elif progress is None or progress is False:
            self.listener = None
        elif callable(progress):
            self.listener = progress
        else:
            raise DataError(f"progress={progress!r} must be a function of a dict, or True")

    @property
    def listens(self) -> bool:
        """Whether anybody but the log is told."""
        return self.listener is not None

    def stage(self, name: str, unit: str, of: int | None = None) -> Stage:
        """Begin a stage, as a context manager.

        Parameters
        ----------
        name : {"read", "pack", "search", "segments", "responses"}
        unit : str
            What is counted.
        of : int, optional
            How many there are in all.
        """
        return Stage(self, name, unit, of)


class Stage:
    """A stage that is going on; see `Reporter.stage`."""

    def __init__(self, reporter: Reporter, name: str, unit: str, of: int | None) -> None:
        self._reporter, self.name, self.unit, self.of = reporter, name, unit, of
        self.done, self._start = 0, time.perf_counter()

    def __enter__(self) -> Stage:
        """Say that the stage begins."""
        self._tell(ended=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say that it has ended, unless by an error."""
        if kind is not None:
            return
        with contextlib.suppress(StopIteration):  # there is nothing left to stop
            self._tell(ended=True)
        if not self._reporter.log:
            return
        seconds = time.perf_counter() - self._start
        logger.info("%s: %d %s in %.3g s", self.name, self.done, self.unit, seconds)

    def advance(self, n: int) -> None:
        """Say that n more are done."""
        self.done += n
        self._tell(ended=False)

    def _tell(self, ended: bool) -> None:
        if self._reporter.listener is None:
            return
        self._reporter.listener(
            {
                "stage": self.name,
                "done": self.done,
                "of": self.of,
                "unit": self.unit,
                "seconds": time.perf_counter() - self._start,
                "ended": ended,
            }
        )


def _bars() -> Listener:
    """Bars of tqdm, one after the other, or lines."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _line
    bars: dict[str, Any] = {}

    def show(event: dict[str, Any]) -> None:
        name = event["stage"]
        if name not in bars:
            bars[name] = tqdm(desc=name, total=event["of"], unit=f" {event['unit']}")
        bars[name].update(event["done"] - bars[name].n)
        if event["ended"]:
            bars.pop(name).close()

    return show


def _line(event: dict[str, Any]) -> None:
    if event["ended"]:
        print(
            f"{event['stage']}: {event['done']:,} {event['unit']}, {event['seconds']:.3g} s",
            file=sys.stderr,
            flush=True,
        )
