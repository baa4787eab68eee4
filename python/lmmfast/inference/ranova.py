"""Random effects tested one term at a time: likelihood ratios of reduced models.

As `ranova` of lmerTest: Kuznetsova, Brockhoff and Christensen (2017), Journal of Statistical
Software 82(13).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

from lmmfast.covariance.terms import Term
from lmmfast.data.batch import CHUNK
from lmmfast.design.design import Design
from lmmfast.design.reduced import ReducedDesign, Sum
from lmmfast.errors import DataError, LmmWarning
from lmmfast.fitting.options import Options
from lmmfast.fitting.pipeline import fit_design
from lmmfast.fitting.refit import continued
from lmmfast.inference.fixed_terms import pieces_of
from lmmfast.inference.likelihood_ratio import Reference
from lmmfast.inference.nesting import cautions

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

Effects = tuple[Sequence[str], Sequence[Sum]]
COLUMNS = ("n_params", "llf", "aic", "chisq", "df", "p", "p_mixture", "note")
FULL, NONE = "full model", "all random effects"


@dataclass(frozen=True)
class Reduction:
    """A model with less random effects: what its row is called, and the effects of each term."""

    name: str
    effects: list[Effects]

    @property
    def is_empty(self) -> bool:
        """Whether no random effects are left."""
        return not any(names for names, _ in self.effects)


def ranova(fit: LMMResult, reduce_terms: bool, n_sim: int, seed: object) -> pd.DataFrame:
    """Test the random effects one term at a time; see `LMMResult.ranova`."""
    import pandas as pd

    reference = Reference("mixture", n_sim, seed)
    design: Design = fit._need(fit._design, "tests of random effects")
    fit._check_data()
    if not fit.terms:
        raise DataError("the model has no random effects that could be tested")
    options = _options(fit)
    found = list(_reductions(design, reduce_terms))
    if not any(reduction.is_empty for reduction in found):
        found.append(Reduction(NONE, [((), ())] * len(fit.terms)))
    note = "" if fit.converged else "not converged"
    rows: list[tuple[object, ...]] = [
        (fit.n_params, fit.llf, fit.aic, np.nan, None, np.nan, np.nan, note)
    ]
    rows += [_row(fit, design, reduction, options, reference) for reduction in found]
    index = [FULL, *(reduction.name for reduction in found)]
    return pd.DataFrame(rows, index=index, columns=list(COLUMNS)).astype({"df": "Int64"})


def _options(fit: LMMResult) -> Options:
    """Settings of the fit, but from the beginning and by the engine that suits a model."""
    own = continued(fit, "cold", None, max_iter=200, verbose=0, callback=None)
    engine = "reference" if fit.engine == "reference" else "auto"
    return Options(reml=own.reml, n_jobs=own.n_jobs, identifiable=own.identifiable, engine=engine)


def _row(
    fit: LMMResult, design: Design, reduction: Reduction, options: Options, reference: Reference
) -> tuple[object, ...]:
    reduced = ReducedDesign(design, reduction.effects)
    lost = _lost_residual_groups(fit, reduced)
    if lost:
        note = f"no test: residuals are correlated within {lost!r}, which has no effects then"
        return (None, np.nan, np.nan, np.nan, None, np.nan, np.nan, note)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        small = fit_design(reduced, options)
    df = fit.n_params - small.n_params
    chisq = max(2 * (fit.llf - small.llf), 0.0)
    p, notes = reference.p_value(small, fit, chisq, df, cautions(small, fit))
    if any(note.startswith("chi-squared:") for note in notes):
        p = np.nan
    if not small.converged:
        notes = ["not converged", *notes]
    usual = float(chdtrc(df, chisq))
    return (small.n_params, small.llf, small.aic, chisq, df, usual, p, "; ".join(notes))


def _lost_residual_groups(fit: LMMResult, reduced: ReducedDesign) -> str | None:
    """The factor within whose levels residuals are correlated, if it has no effects any more."""
    if fit.residual.correlation is None or len(fit._grouping) == 1:
        return None
    inner = max(fit._grouping, key=lambda name: fit._grouping[name][0])
    return None if inner in reduced.factor_names else inner


# -- what is left out ------------------------------------------------------------------------------


def _reductions(design: Design, reduce_terms: bool) -> Iterator[Reduction]:
    """Reduced models, in the order of the terms."""
    first = 0
    whole: list[Effects] = []
    for term in design.terms:
        whole.append((term.names, [(first + k,) for k in range(len(term.names))]))
        first += len(term.names)
    for k, term in enumerate(design.terms):
        for name, left in _reduced_term(design, term, whole[k], reduce_terms):
            yield Reduction(name, [*whole[:k], left, *whole[k + 1 :]])


def _reduced_term(
    design: Design, term: Term, whole: Effects, reduce_terms: bool
) -> Iterator[tuple[str, Effects]]:
    """Names of the rows of a term, and the effects that it keeps."""
    names, sums = whole
    text = _text(term)
    sources = [_source(name) for name in names]
    distinct = list(dict.fromkeys(sources))
    correlated = term.structure.name == "unstructured"
    parts = [s for s in distinct if s] if correlated else distinct
    if not reduce_terms or not parts or term.structure.name not in ("unstructured", "diagonal"):
        yield text, ((), ())
    elif len(distinct) > 1:
        for part in parts:
            left = [k for k, source in enumerate(sources) if source != part]
            kept = [names[k] for k in left], [sums[k] for k in left]
            yield f"{part or '1'} in {text}", kept
    elif correlated and len(names) > 1 and _sum_to_one(design, sums):
        yield f"{parts[0]} in {text}", (["Intercept"], [tuple(k for own in sums for k in own)])
    else:
        yield text, ((), ())


def _source(name: str) -> str:
    """Return what a column is of: ``f:x`` of ``f[T.b]:x``; nothing of the intercept."""
    return ":".join(re.sub(r"\[.*\]\Z", "", piece, flags=re.DOTALL) for piece in pieces_of(name))


def _text(term: Term) -> str:
    """Write the term as in a formula."""
    sources = list(dict.fromkeys(_source(name) for name in term.names))
    slopes = [source for source in sources if source]
    effects = " + ".join(([] if "" in sources else ["0"]) + (slopes or ["1"]))
    if term.structure.name == "diagonal" and len(term.names) > 1:
        return f"({effects} || {term.group})"
    plain = term.structure.name == "unstructured" or len(term.names) == 1
    word = "" if plain else "cs" if "compound" in term.structure.name else term.structure.name
    return f"{word}({effects} | {term.group})"


def _sum_to_one(design: Design, sums: Sequence[Sum]) -> bool:
    """Whether columns of Z are the indicators of all levels of a factor."""
    for start in range(0, design.n_obs, CHUNK):
        batch = design.batch(slice(start, min(start + CHUNK, design.n_obs))).as_float()
        if not (np.sum([batch.Z[k] for own in sums for k in own], axis=0) == 1.0).all():
            return False
    return True
