"""The compiled kernels: what each build of them has (``lmmfast._core_base``, ``_v3``, ``_v4``).

`Array` and `Ints` are taken as they are; `ArrayLike` is converted where it has to be.
"""

from collections.abc import Sequence
from typing import Any, SupportsFloat, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = list[Any]
Terms = Sequence[tuple[str, SupportsIndex]]
Keys = TypeVar("Keys", bound=NDArray[Any])

class CrossedElimination:
    @property
    def positive(self) -> bool: ...
    @property
    def logdet(self) -> float: ...
    def solve(self, B: ArrayLike) -> tuple[Array, Array]: ...
    def own_blocks(self) -> list[Array]: ...

class CrossedSystem:
    def __init__(
        self,
        codes: Sequence[ArrayLike],
        counts: Sequence[SupportsIndex],
        columns: Sequence[Sequence[SupportsIndex]],
        leading: Sequence[SupportsIndex],
        p1: SupportsIndex,
        dense_any: SupportsIndex,
        dense_most: SupportsIndex,
        dense_share: SupportsFloat,
        most_entries: SupportsIndex,
        n_threads: SupportsIndex,
    ) -> None: ...
    def add_rows(
        self,
        A: ArrayLike,
        Z: ArrayLike,
        weights: ArrayLike | None,
        begin: SupportsIndex,
        n_threads: SupportsIndex,
    ) -> None: ...
    def finish(self) -> None: ...
    def effects(self) -> list[Ints]: ...
    def times_G(self, g: ArrayLike) -> Array: ...
    def moments(self, u: ArrayLike, kappa: ArrayLike) -> tuple[Array, Array, Array]: ...
    def eliminate(
        self, roots: Sequence[ArrayLike], n_threads: SupportsIndex
    ) -> CrossedElimination: ...
    @property
    def n_effects(self) -> int: ...
    @property
    def n_dense(self) -> int: ...
    @property
    def has_dense(self) -> list[bool]: ...
    @property
    def gram(self) -> Array: ...
    @property
    def B(self) -> Array: ...
    @property
    def mean_G(self) -> list[Array]: ...

class NestedTree:
    def __init__(
        self,
        columns: Sequence[Sequence[SupportsIndex]],
        p1: SupportsIndex,
        first: Sequence[ArrayLike],
        first_block: ArrayLike,
        centre: Sequence[ArrayLike],
        perp: Array,
        data: Array,
        counts: ArrayLike | None = ...,
    ) -> None: ...
    def pack(
        self,
        A: ArrayLike,
        Z: ArrayLike,
        weights: ArrayLike | None,
        ptr: ArrayLike,
        first_unit: SupportsIndex,
        n_units: SupportsIndex,
        n_threads: SupportsIndex,
    ) -> None: ...
    def share(self, n_threads: SupportsIndex) -> tuple[Array, Array, int] | None: ...
    def evaluate(self, Lambda: ArrayLike, with_kr: bool, n_threads: SupportsIndex) -> Array: ...
    def absorb(
        self,
        units: ArrayLike,
        K_R: SupportsIndex,
        Lambda: ArrayLike,
        with_kr: bool,
        n_threads: SupportsIndex,
    ) -> tuple[Array, list[Array]]: ...
    def effects(
        self, Lambda: ArrayLike, root: ArrayLike, c: ArrayLike, n_threads: SupportsIndex
    ) -> list[Array]: ...
    def effects_covariance(
        self, Lambda: ArrayLike, root: ArrayLike, n_threads: SupportsIndex
    ) -> list[Array]: ...

def compress_rows(
    X: Columns,
    Z: Columns,
    y: NDArray[Any],
    weights: NDArray[Any] | None,
    offset: NDArray[Any] | None,
    ptr: ArrayLike,
    order: ArrayLike | None,
    X_shift: ArrayLike,
    X_scale_inv: ArrayLike,
    Z_shift: ArrayLike,
    Z_scale_inv: ArrayLike,
    X_map: ArrayLike | None,
    Z_map: ArrayLike | None,
    y_shift: SupportsFloat,
    y_scale_inv: SupportsFloat,
    beta: ArrayLike,
    out: Array,
    n_threads: SupportsIndex,
    n_single: SupportsIndex = ...,
    X_expected: ArrayLike | None = ...,
    Z_expected: ArrayLike | None = ...,
) -> tuple[Array, Array, float, float, int, bool, list[int]]: ...
def cross_product(X: ArrayLike, Y: ArrayLike) -> Array: ...
def dense_effects(
    A: Array,
    Z: Array,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    correlation: tuple[Any, ...] | None,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    root: ArrayLike,
    c: ArrayLike,
    n_threads: SupportsIndex,
) -> Array: ...
def dense_effects_cov(
    Z: Array,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    correlation: tuple[Any, ...] | None,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    root: ArrayLike,
    n_threads: SupportsIndex,
) -> Array: ...
def dense_totals(
    A: Array,
    Z: Array,
    counts: ArrayLike,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    correlation: tuple[Any, ...] | None,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    with_kr: bool,
    n_threads: SupportsIndex,
) -> tuple[Array, int]: ...
def dense_totals_of_buckets(
    buckets: Sequence[tuple[Any, ...]],
    kappa: ArrayLike,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    with_kr: bool,
    n_threads: SupportsIndex,
) -> tuple[Array, int]: ...
def dense_contracted(
    buckets: Sequence[tuple[Any, ...]],
    kappa: ArrayLike,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    W: Sequence[ArrayLike],
    n_threads: SupportsIndex,
) -> tuple[Array, int]: ...
def fingerprint(arrays: list[NDArray[Any]], n_threads: SupportsIndex) -> list[int]: ...
def dense_unit_totals(
    A: Array,
    Z: Array,
    counts: ArrayLike,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    correlation: tuple[Any, ...] | None,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    unit: ArrayLike,
    out: Array,
    n_threads: SupportsIndex,
) -> int: ...
def dense_whitened(
    A: Array,
    Z: Array,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    correlation: tuple[Any, ...] | None,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    c: ArrayLike,
    n_threads: SupportsIndex,
) -> Array: ...
def evaluate(
    data: Array,
    q: SupportsIndex,
    p1: SupportsIndex,
    Lambda: ArrayLike,
    perp: ArrayLike,
    with_kr: bool,
    n_threads: SupportsIndex,
    counts: ArrayLike | None = ...,
    z_in_x: Sequence[SupportsIndex] = ...,
) -> Array: ...
def find_runs(keys: Keys, n_threads: SupportsIndex) -> tuple[Ints, Keys, bool]: ...
def fit_responses(
    data: Array,
    q: SupportsIndex,
    p1: SupportsIndex,
    n_clusters: SupportsIndex,
    p: SupportsIndex,
    constants: ArrayLike,
    perp: ArrayLike,
    terms: Terms,
    n_obs: SupportsIndex,
    reml: bool,
    max_evaluations: SupportsIndex,
    n_threads: SupportsIndex,
    z_in_x: Sequence[SupportsIndex] = ...,
) -> dict[str, Any]: ...
def fit_projected(
    design: Array,
    projected: Array,
    perp: Array,
    constants: ArrayLike,
    terms: Terms,
    n_obs: SupportsIndex,
    reml: bool,
    start: ArrayLike | None,
    max_evaluations: SupportsIndex,
    n_threads: SupportsIndex,
    counts: ArrayLike | None = ...,
    z_in_x: Sequence[SupportsIndex] = ...,
) -> dict[str, Any]: ...
def fit_rows(
    X: Columns,
    Z: Columns,
    y: NDArray[Any],
    weights: NDArray[Any] | None,
    offset: NDArray[Any] | None,
    ptr: ArrayLike,
    order: ArrayLike | None,
    terms: Terms,
    unit: SupportsIndex | None,
    reml: bool,
    max_evaluations: SupportsIndex,
) -> dict[str, Any]: ...
def fit_segments(
    X: Columns,
    Z: Columns,
    y: NDArray[Any],
    weights: NDArray[Any] | None,
    offset: NDArray[Any] | None,
    ptr: ArrayLike,
    order: ArrayLike | None,
    segments: ArrayLike,
    terms: Terms,
    unit: SupportsIndex | None,
    reml: bool,
    max_evaluations: SupportsIndex,
    n_threads: SupportsIndex,
) -> dict[str, Any]: ...
def group_rows(
    keys: NDArray[Any], low: SupportsIndex, n_codes: SupportsIndex, n_threads: SupportsIndex
) -> tuple[Ints, Ints]: ...

lanes: int

def markov_effects(
    A: Array,
    Z: Array,
    ptr: Ints,
    lag: Array,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    name: str,
    psi: SupportsFloat,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    root: ArrayLike,
    c: ArrayLike,
    n_threads: SupportsIndex,
) -> Array: ...
def markov_effects_cov(
    A: Array,
    Z: Array,
    ptr: Ints,
    lag: Array,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    name: str,
    psi: SupportsFloat,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    root: ArrayLike,
    n_threads: SupportsIndex,
) -> Array: ...
def markov_totals(
    A: Array,
    Z: Array,
    ptr: Ints,
    lag: Array,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    name: str,
    psi: SupportsFloat,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    with_kr: bool,
    n_threads: SupportsIndex,
) -> tuple[Array, int]: ...
def markov_unit_totals(
    A: Array,
    Z: Array,
    ptr: Ints,
    lag: Array,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    name: str,
    psi: SupportsFloat,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    unit: ArrayLike,
    out: Array,
    n_threads: SupportsIndex,
) -> int: ...
def markov_whitened(
    A: Array,
    Z: Array,
    ptr: Ints,
    lag: Array,
    inverse_root_weights: ArrayLike | None,
    G: ArrayLike | None,
    kappa: ArrayLike,
    name: str,
    psi: SupportsFloat,
    nu: SupportsFloat | None,
    Lambda: ArrayLike,
    c: ArrayLike,
    n_threads: SupportsIndex,
) -> Array: ...

max_q: int

def maximise(
    data: Array,
    q: SupportsIndex,
    p1: SupportsIndex,
    perp: ArrayLike,
    terms: Terms,
    keep: Sequence[SupportsIndex],
    n_obs: SupportsIndex,
    reml: bool,
    constant: SupportsFloat,
    start: ArrayLike | None,
    max_evaluations: SupportsIndex,
    n_threads: SupportsIndex,
    counts: ArrayLike | None = ...,
    z_in_x: Sequence[SupportsIndex] = ...,
    identified: bool = ...,
) -> dict[str, Any] | None: ...
def random_effects(
    data: Array,
    q: SupportsIndex,
    p1: SupportsIndex,
    n_clusters: SupportsIndex,
    Lambda: ArrayLike,
    root: ArrayLike,
    c: ArrayLike,
    n_threads: SupportsIndex,
) -> Array: ...
def random_effects_covariance(
    data: Array,
    q: SupportsIndex,
    p1: SupportsIndex,
    n_clusters: SupportsIndex,
    Lambda: ArrayLike,
    root: ArrayLike,
    n_threads: SupportsIndex,
) -> Array: ...
def residual_distance(name: str, d: ArrayLike, psi: SupportsFloat) -> tuple[Array, Array]: ...
def residual_n_params(name: str, T: SupportsIndex) -> int: ...
def residual_structures() -> dict[str, dict[str, str]]: ...
def residual_table(name: str, T: SupportsIndex, psi: ArrayLike) -> tuple[Array, Array]: ...
def rows_in_basis(
    X: Columns,
    Z: Columns,
    y: NDArray[Any],
    offset: NDArray[Any] | None,
    order: ArrayLike | None,
    X_shift: ArrayLike,
    X_scale_inv: ArrayLike,
    Z_shift: ArrayLike,
    Z_scale_inv: ArrayLike,
    X_map: ArrayLike | None,
    Z_map: ArrayLike | None,
    y_shift: SupportsFloat,
    y_scale_inv: SupportsFloat,
    beta: ArrayLike,
    n_threads: SupportsIndex,
) -> tuple[Array, Array]: ...
def share(
    data: Array,
    q: SupportsIndex,
    p1: SupportsIndex,
    n_clusters: SupportsIndex,
    n_threads: SupportsIndex,
    passes: SupportsIndex,
) -> tuple[Array, Array, int] | None: ...
