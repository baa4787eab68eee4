"""Each model of the oracle tests is fitted once."""

import pytest
from peers import load, residual_from

import lmmfast


@pytest.fixture(scope="session")
def fit_once():
    """``fit_once(dataset, formula, method, engine, **options)``, remembered for the session.

    A residual structure is given as text.
    """
    fits = {}

    def fit(dataset, formula, method, engine="auto", **options):
        key = (dataset, formula, method, engine, tuple(sorted(options.items())))
        if key not in fits:
            if "residual" in options:
                options["residual"] = residual_from(options["residual"])
            fits[key] = lmmfast.lmm(
                formula, load(dataset), reml=method == "REML", engine=engine, **options
            )
        return fits[key]

    return fit
