"""What a larger model has that a smaller one has not: parameters without a bound, and variances.

Near the smaller model the larger one is a cone: matrices of the new effects are positive
semidefinite, their covariances with the others are free (Stram and Lee 1994, Biometrics 50,
1171-1177). Variances that the smaller model has are taken as positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arrays import Array, vech_pairs
from lmmfast.covariance.terms import Term
from lmmfast.errors import DataError
from lmmfast.inference.chibar import ConeTest
from lmmfast.inference.nesting import effects
from lmmfast.likelihood.at_point import LikelihoodPoint

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


@dataclass
class Tested:
    """Variance parameters of the larger model, by what the smaller one makes of them.

    Attributes
    ----------
    free : list of int
        Covariances that are zero in the smaller model.
    blocks : list of list of int
        Entries of vech of matrices that are zero in the smaller model.
    n_coefficients : int
        How many more fixed effects the larger model has.
    """

    free: list[int] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    n_coefficients: int = 0

    @property
    def n_free(self) -> int:
        """Degrees of freedom without a bound."""
        return len(self.free) + self.n_coefficients

    @property
    def is_one_variance(self) -> bool:
        """Whether there is a single variance: then the mixture is half and half."""
        return [len(block) for block in self.blocks] == [1]


def tested_parameters(small: LMMResult, big: LMMResult) -> Tested | str:
    """Find what a larger model has more, or say why its cone is not known."""
    if str(small.residual) != str(big.residual):
        return "the mixture is known for random effects alone"
    if not effects(small) <= effects(big):
        return "the mixture is not known where effects become a sum of them"
    out = Tested(n_coefficients=len(big.x_names) - len(small.x_names))
    for term, places in zip(big.terms, big._covariance.params, strict=True):
        guests = [t for t in small.terms if t.group == term.group and set(t.names) <= _set(term)]
        own = range(places.start, places.stop)
        if len(term.names) == 1 or term.structure.name == "unstructured":
            known = _of_any_matrix(term, guests, own, out)
        elif term.structure.name == "diagonal" and len(own) == len(term.names):
            known = _of_variances(term, guests, own, out)
        else:
            known = _of_one_variance(term, guests, own, out)
        if not known:
            return f"the mixture is not known for {term.structure.name} matrices"
    return out


def _set(term: Term) -> set[str]:
    return set(term.names)


def _of_any_matrix(term: Term, guests: Sequence[Term], own: range, out: Tested) -> bool:
    """Sort the entries of an unstructured matrix; whether it can be done."""
    host = {name: k for k, guest in enumerate(guests) for name in guest.names}
    block = []
    for place, row, column in zip(own, *vech_pairs(len(term.names)), strict=True):
        hosts = [host.get(term.names[j]) for j in (row, column)]
        if hosts == [None, None]:
            block.append(place)
        elif hosts[0] != hosts[1] or not _has_entry(guests[hosts[0] or 0], row != column):
            out.free.append(place)
    if block:
        out.blocks.append(block)
    return all(len(g.names) == 1 or _is_plain(g) for g in guests)


def _is_plain(term: Term) -> bool:
    """Whether each of its variances is a parameter of its own."""
    several = term.structure.n_params(len(term.names)) > 1
    return term.structure.name == "unstructured" or (term.structure.name == "diagonal" and several)


def _has_entry(term: Term, is_covariance: bool) -> bool:
    return not is_covariance or term.structure.name == "unstructured"


def _of_variances(term: Term, guests: Sequence[Term], own: range, out: Tested) -> bool:
    """Sort the variances of a diagonal matrix."""
    kept = {name for guest in guests for name in guest.names}
    places = zip(own, term.names, strict=True)
    out.blocks += [[place] for place, name in places if name not in kept]
    return all(len(g.names) == 1 or _is_plain(g) for g in guests)


def _of_one_variance(term: Term, guests: Sequence[Term], own: range, out: Tested) -> bool:
    """A matrix with one variance, or one that the smaller model has as it is."""
    if guests:
        return guests[0].names == term.names and str(guests[0].structure) == str(term.structure)
    out.blocks.append(list(own))
    return len(own) == 1


def cone_test(small: LMMResult, big: LMMResult, tested: Tested) -> ConeTest:
    """Set up the test with the information of the larger model at the smaller one's estimates.

    Raises
    ------
    DataError
        A fit that holds no data; estimates of the smaller model that are none of the larger.
    UnsupportedModelError
        Crossed factors with more than 2000 effects, whose engine has average information alone.
    """
    point: LikelihoodPoint = big.at(_estimates_within(small, big))
    n_beta = len(big.x_names)
    information = point.information().to_numpy()[n_beta:, n_beta:]
    scale = np.sqrt(np.diag(information))
    try:
        scaled_cov = np.linalg.inv(information / np.outer(scale, scale))
    except np.linalg.LinAlgError:
        raise DataError("the information is singular at the smaller model") from None
    cov = scaled_cov / np.outer(scale, scale)
    bounded = [place for block in tested.blocks for place in block]
    sizes = [round((np.sqrt(8 * len(block) + 1) - 1) / 2) for block in tested.blocks]
    return ConeTest(tested.n_free, sizes, cov[np.ix_(bounded, bounded)])


def _estimates_within(small: LMMResult, big: LMMResult) -> Array:
    """Theta of the larger model where it is the smaller one."""
    covariance = big._covariance
    D = np.zeros((covariance.q, covariance.q))
    first = small._covariance.columns
    for term, columns in zip(big.terms, covariance.columns, strict=True):
        for guest, own in zip(small.terms, first, strict=True):
            if guest.group == term.group and set(guest.names) <= set(term.names):
                places = [columns.start + term.names.index(name) for name in guest.names]
                D[np.ix_(places, places)] = small._estimates.D[own, own]
    n_tail = len(small.theta_names) - small._covariance.n_random
    return np.append(covariance.natural(D), small.theta.to_numpy()[-n_tail:])
