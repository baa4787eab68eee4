"""The errors and warnings of lmmfast: one tree, every message says what to do."""

from __future__ import annotations


class LmmError(Exception):
    """Base class of all errors that lmmfast raises on purpose."""


class DataError(LmmError, ValueError):
    """The data cannot be used as they are: missing, non-finite, wrong length or type."""


class FormulaError(LmmError, ValueError):
    """The formula cannot be read, or names something that the data do not have."""


class NotIdentifiableError(LmmError, ValueError):
    """The data cannot tell the parameters of the model apart."""


class EmptyEffectsError(NotIdentifiableError):
    """Columns of Z are zero in all rows; a fit leaves them out."""

    def __init__(self, text: str, columns: list[int]) -> None:
        super().__init__(text)
        self.columns = columns


class UnsupportedModelError(LmmError, NotImplementedError):
    """A model that is well defined, but that lmmfast does not fit yet."""


class TooLargeError(UnsupportedModelError, MemoryError):
    """A model that would take more memory, or more hours, than there are."""


class ConvergenceError(LmmError, RuntimeError):
    """The log-likelihood could not be evaluated or maximised."""


class LmmWarning(UserWarning):
    """Base class of all warnings of lmmfast."""


class ConvergenceWarning(LmmWarning):
    """The optimiser stopped before its certificate was satisfied."""


class RankWarning(LmmWarning):
    """Columns of X were dropped because other columns determine them."""


class NotIdentifiableWarning(LmmWarning):
    """The data cannot tell parameters of the model apart, and a fit was wanted all the same."""


class MissingRowsWarning(LmmWarning):
    """More than a tenth of the rows was left out because values are missing."""


class NestingWarning(LmmWarning):
    """Labels of one grouping factor seem to count within the levels of another."""


class SlowFitWarning(LmmWarning):
    """A fit will take minutes."""


class NewDataWarning(LmmWarning):
    """An expression of the formula may mean something else for new rows."""


class NewGroupsWarning(LmmWarning):
    """Groups unknown to the fit were predicted at the population level."""
