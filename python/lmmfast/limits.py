"""What a fit will need, said before it starts: memory, and hours of computing.

Estimates are of the arrays that grow with products of sizes, and of the operations of some
evaluations of the likelihood; they are meant to be right within a factor of two or so. What is
refused names the figure, what causes it, and the way out.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmmfast.errors import DataError, SlowFitWarning, TooLargeError

#: Hours from which on a fit is refused, unless `LMMFAST_HOURS` says otherwise.
HOURS = 2.0
#: Operations a second of one thread, and evaluations of the likelihood in a fit.
RATE, EVALUATIONS = 1.5e10, 30
#: Copies of square matrices of fixed effects, and of parameters, that live at a time.
SQUARES, INFORMATION = 10, 12
#: Clusters of so few rows lie side by side.
MOST_IN_LANES = 32
#: Operations of a fit for each square of the number of fixed effects, as measured: packing rows;
#: finding columns that depend on others, factorising and inverting.
PER_ROW, PER_COLUMN = 4, 300
#: Evaluations of a fit that nothing holds up, and minutes from which on one is announced.
FEW_EVALUATIONS, MINUTES = 10, 1.0
#: Products of derivatives, for the information, come from memory: slower by this, as measured;
#: operations of the search itself in an evaluation, for the cube of the number of parameters.
FROM_MEMORY, PER_PARAMETER = 6, 40
#: Operations that differences of the score may take for a Hessian: some minutes of one thread.
MOST_FOR_HESSIAN = 3e12
#: So few fixed effects need no look at what there is.
FEW_COLUMNS = 200

_LITTLE = 2**24
_SUFFIXES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_CGROUPS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def memory_limit() -> float:
    """Bytes that this process may use; infinite where nothing is known.

    ``LMMFAST_MEMORY`` where it is set; else the least of the machine's memory, the cgroup's limit
    and the limit of the address space.

    Raises
    ------
    DataError
        ``LMMFAST_MEMORY`` is no size.
    """
    given = os.environ.get("LMMFAST_MEMORY")
    if given:
        return _size(given)
    return min(_machine(), *map(_cgroup, _CGROUPS), _address_space())


def hours_limit() -> float:
    """Hours that a fit may take: ``LMMFAST_HOURS`` where it is set.

    Raises
    ------
    DataError
        ``LMMFAST_HOURS`` is no positive number.
    """
    given = os.environ.get("LMMFAST_HOURS")
    if not given:
        return HOURS
    try:
        hours = float(given)
    except ValueError:
        hours = math.nan
    if not hours > 0:
        raise DataError(f"LMMFAST_HOURS={given!r}: give a positive number, or inf")
    return hours


def check(what: str, n_bytes: float, operations: float, threads: int, way_out: str) -> None:
    """Refuse what needs more memory than there is, or more hours than may be.

    Parameters
    ----------
    what : str
        What causes it, such as ``"the factor 'site' of 20,000 levels"``.
    n_bytes, operations : float
        What it needs.
    threads : int
    way_out : str
        What to do instead.

    Raises
    ------
    TooLargeError
    """
    if n_bytes > _LITTLE and n_bytes > (memory := memory_limit()):
        raise TooLargeError(
            f"{what} would take {_gib(n_bytes)} of memory, but {_gib(memory)} may be used: "
            f"{way_out}; LMMFAST_MEMORY=64G in the environment sets another limit"
        )
    hours = operations / (RATE * threads) / 3600
    if hours > (limit := hours_limit()):
        raise TooLargeError(
            f"{what} would take about {hours:,.0f} hours on {threads} thread"
            f"{'s' * (threads > 1)}, more than the {limit:g} that are allowed: {way_out}; "
            "LMMFAST_HOURS=100 in the environment sets another limit"
        )


def check_fixed_effects(n_obs: int, x_names: Sequence[str], threads: int) -> None:
    """Refuse more fixed effects than memory and time are for.

    Raises
    ------
    TooLargeError
        Naming the factor that most columns come from.
    """
    if len(x_names) < FEW_COLUMNS:
        return
    p1 = len(x_names) + 1.0
    n_bytes = 8 * SQUARES * p1**2
    operations = (PER_ROW * n_obs + PER_COLUMN * p1) * p1**2
    name, count = Counter(name.split("[")[0] for name in x_names).most_common(1)[0]
    if count > p1 / 2 and count > 1:
        what = f"the fixed effect {name!r} of {count:,} columns over {n_obs:,} rows"
        way_out = f"make it a random effect, (1 | {name}), or put its levels together"
    else:
        what = f"{len(x_names):,} fixed effects over {n_obs:,} rows"
        way_out = "leave columns out, or make factors of many levels random effects"
    check(what, n_bytes, operations, threads, way_out)


def check_levels_of_variances(name: str, n_levels: int, n_obs: int) -> None:
    """Refuse a variance for each of very many levels.

    Raises
    ------
    TooLargeError
    """
    n_bytes = 8.0 * (2 * n_obs * n_levels + INFORMATION * n_levels**2)
    what = f"a residual variance for each of the {n_levels:,} levels of {name}"
    check(what, n_bytes, 0.0, 1, "choose a column of fewer levels, or make it a random effect")


def most_dense(wanted: int) -> int:
    """Crossed effects that may form a dense block, of at most so many: a sixth of the memory."""
    return int(min(wanted, math.sqrt(memory_limit() / 6 / 8)))


def most_sparse(wanted: int) -> int:
    """Entries of sparse columns, of at most so many: half of the memory at 24 bytes each."""
    return int(min(wanted, memory_limit() / 2 / 24))


def check_reference(n: int, q: int) -> None:
    """Refuse V (n, n) of all rows, and its derivatives, where memory does not hold them.

    Raises
    ------
    TooLargeError
    """
    n_bytes = 8.0 * (q * (q + 1) // 2 + 4) * n**2
    what = f"engine='reference', which forms V of all {n:,} rows,"
    check(what, n_bytes, 0.0, 1, "leave engine= out")


@dataclass(frozen=True)
class DenseSizes:
    """Sizes that the work of the dense engine depends on.

    Attributes
    ----------
    patterns : sequence of (int, int, int)
        Rows of a cluster, how many such patterns, and clusters that are gone through for them.
    n_params : int
        Parameters of the residuals.
    n_local : int
        Those that one cluster depends on.
    p1 : int
        Columns of [X y].
    lanes : int
        Clusters of few rows side by side.
    visits, n_psi : int
        Of a table of correlations over visits, and its parameters; 0: there is none.
    """

    patterns: Sequence[tuple[int, int, int]]
    n_params: int
    n_local: int
    p1: int
    lanes: int
    visits: int
    n_psi: int

    @property
    def longest(self) -> int:
        """Rows of the longest cluster."""
        return max(n for n, _, _ in self.patterns)

    def n_bytes(self, threads: int) -> float:
        """Memory of factors, derivatives, tables and information."""
        n_patterns = sum(count for _, count, _ in self.patterns)
        at_once = min(threads, n_patterns) * (self.lanes if self.longest <= MOST_IN_LANES else 1)
        doubles = at_once * (self.n_local + 2.0) * self.longest**2
        doubles += 2.0 * self.n_psi * self.visits**2 + INFORMATION * float(self.n_params) ** 2
        return 8 * doubles

    def operations(self) -> float:
        """Operations of one evaluation."""
        k, total = float(self.n_local), PER_PARAMETER * float(self.n_params) ** 3
        for n, count, clusters in self.patterns:
            if n <= MOST_IN_LANES:  # a lane without a pattern takes its time too
                count = self.lanes * math.ceil(count / self.lanes)
            total += count * (n**3 * (1 / 3 + 2 * k) + FROM_MEMORY * k**2 * n**2)
            total += clusters * 2.0 * n * self.p1 * (n + self.p1) * (1 + k)
        return total


@dataclass(frozen=True)
class Forecast:
    """What a fit will take.

    Attributes
    ----------
    what : str
        What causes it.
    operations : float
        Of one evaluation.
    threads : int
    way_out : str
        What to do instead.
    """

    what: str
    operations: float
    threads: int
    way_out: str

    def warn(self, stacklevel: int) -> None:
        """Announce minutes."""
        minutes = FEW_EVALUATIONS * self.operations / (RATE * self.threads) / 60
        if minutes >= MINUTES:
            warnings.warn(
                f"{self.what} will take about {minutes:,.0f} minute{'s' * (minutes >= 1.5)} on "
                f"{self.threads} thread{'s' * (self.threads > 1)}: {self.way_out}",
                SlowFitWarning,
                stacklevel=stacklevel + 1,
            )


def check_dense(structure: str, sizes: DenseSizes, threads: int, way_out: str) -> Forecast:
    """Refuse residual covariances that are too large to be formed and factorised.

    Parameters
    ----------
    structure : str
        For the message.
    sizes : DenseSizes
    threads : int
    way_out : str
        What to do instead.

    Returns
    -------
    Forecast

    Raises
    ------
    TooLargeError
    """
    what = f"{structure} with clusters of up to {sizes.longest:,} rows"
    if sizes.visits:
        what = f"{structure} over {sizes.visits:,} visits, of {sizes.n_params:,} parameters,"
    operations = sizes.operations()
    check(what, sizes.n_bytes(threads), EVALUATIONS * operations, threads, way_out)
    return Forecast(what, operations, min(threads, _at_once(sizes)), way_out)


def _at_once(sizes: DenseSizes) -> int:
    """Threads that have something to do: each takes patterns side by side."""
    packs = sum(
        math.ceil(count / (sizes.lanes if n <= MOST_IN_LANES else 1))
        for n, count, _ in sizes.patterns
    )
    return max(1, packs)


def _size(text: str) -> float:
    """Bytes of "8G", "512 MiB", "1e9" or "inf"."""
    number = text.strip().lower().removesuffix("b").removesuffix("i")
    suffix = number[-1:] if number[-1:] in "kmgt" and number != "inf" else ""
    try:
        size = float(number.removesuffix(suffix)) * _SUFFIXES[suffix]
    except ValueError:
        size = math.nan
    if not size > 0:
        raise DataError(f"LMMFAST_MEMORY={text!r} is no size: write 8G, 512M, 1e9 or inf")
    return size


def _gib(n_bytes: float) -> str:
    if n_bytes < 2**30:
        return f"{n_bytes / 2**20:,.0f} MiB"
    return f"{n_bytes / 2**30:,.1f} GiB"


def _machine() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _cgroup(path: str) -> float:
    try:
        return float(Path(path).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def _address_space() -> float:
    try:
        import resource
    except ImportError:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if soft == resource.RLIM_INFINITY else float(soft)
