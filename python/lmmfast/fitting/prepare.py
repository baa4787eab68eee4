"""From a design to data in a working basis, ready for evaluations: one grouping factor."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.design.design import Design, check_finite
from lmmfast.engines.engine import Engine
from lmmfast.engines.moments import MomentsEngine
from lmmfast.engines.reference import ReferenceEngine
from lmmfast.errors import (
    DataError,
    RankWarning,
    UnsupportedModelError,
)
from lmmfast.fitting.options import Options
from lmmfast.fitting.settle import settle
from lmmfast.grouping.clusters import Clusters
from lmmfast.limits import check_fixed_effects
from lmmfast.packing.basis import Basis
from lmmfast.packing.compress import CompressedClusters, compress
from lmmfast.search.estimates import independent_columns


@dataclass(frozen=True)
class Prepared:
    """Data in the working basis, ready for evaluations.

    Attributes
    ----------
    gram, perp : ndarray (p + 1, p + 1)
        Cross-products of [X y], whole and beyond the span of Z.
    rank_Z : int
        Sum of the ranks of the Z_i.
    """

    engine: Engine
    basis: Basis
    gram: Array
    log_weights: float
    perp: Array
    rank_Z: int

    @property
    def keep(self) -> NDArray[np.intp]:
        """Columns of X that are linearly independent."""
        return independent_columns(self.gram[:-1, :-1], self.basis)


def prepare_design(
    design: Design, clusters: Clusters, options: Options
) -> tuple[BlockCovariance, Prepared]:
    """Run the stages up to packing, for a design that serves many responses."""
    check_fixed_effects(design.n_obs, design.x_names, n_threads(options.n_jobs))
    covariance = choose_covariance(design)
    data = prepare(design, clusters, options)
    report_dropped(design, data.keep, options)
    return covariance, data


def choose_covariance(design: Design) -> BlockCovariance:
    """Covariance structures of the terms, for the sizes that they have."""
    sizes = tuple(len(term.names) for term in design.terms)
    if sum(sizes) > core.max_q:
        raise UnsupportedModelError(
            f"{sum(sizes)} random effects per group of {design.group_name!r}: at most {core.max_q} "
            "are supported"
        )
    for term in design.terms:
        if len(term.names) == 1 and "compound symmetry" in term.structure.name:
            raise UnsupportedModelError(
                f"compound symmetry of the single random effect {term.names[0]!r} of "
                f"{term.group!r}: it needs at least two columns; leave cs() out"
            )
    return BlockCovariance(tuple(term.structure for term in design.terms), sizes)


def prepare(design: Design, clusters: Clusters, options: Options) -> Prepared:
    """Bring the data into the working basis, for the engine asked for."""

    def pack(basis: Basis) -> tuple[Prepared, Array, Basis]:
        data = prepare_engine(design, clusters, options, basis)
        return data, data.gram, data.basis

    trust_sample = options.engine != "reference"  # compression sees to it
    return settle(design, pack, trust_sample)[0]


def prepare_engine(design: Design, clusters: Clusters, options: Options, basis: Basis) -> Prepared:
    """Bring the data into a basis, or one next to it where the working residual misleads."""
    if options.engine == "reference":
        return _prepare_reference(design, clusters, basis)
    threads = n_threads(options.n_jobs)
    return prepared(compress(design, clusters, basis, threads), threads)


def prepared(packed: CompressedClusters, threads: int) -> Prepared:
    """Set up the moments engine over compressed clusters."""
    engine = MomentsEngine(packed, threads)
    return Prepared(
        engine, packed.basis, packed.gram, packed.log_weights, packed.perp, packed.rank_Z
    )


def _prepare_reference(design: Design, clusters: Clusters, basis: Basis) -> Prepared:
    rows = np.arange(design.n_obs) if clusters.order is None else clusters.order
    A, Z, weights = basis.working(design.batch(rows))
    if not (np.isfinite(A).all() and np.isfinite(Z).all()):
        check_finite(design)
    log_weights = 0.0 if weights is None else float(np.log(weights).sum())
    engine = ReferenceEngine(A, Z, weights, clusters.ptr)
    return Prepared(engine, basis, engine.gram, log_weights, *engine.beside_Z())


def report_dropped(design: Design, keep: NDArray[np.intp], options: Options) -> None:
    """Refuse columns of X that the others determine, or warn of them."""
    dropped = [name for j, name in enumerate(design.x_names) if j not in keep]
    if dropped:
        message = f"columns of X determined by the others: {', '.join(dropped)}"
        if options.rank_deficient == "raise":
            raise DataError(f"{message}; leave them out, or pass rank_deficient='drop'")
        warnings.warn(f"dropped {message}", RankWarning, stacklevel=4)
