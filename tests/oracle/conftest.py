"""Each model of the oracle tests is fitted once."""

import pytest
from peers import load

import lmmfast


@pytest.fixture(scope="session")
def fit_once():
    """``fit_once(dataset, formula, method, engine, **options)``, remembered for the session."""
    fits = {}

    def fit(dataset, formula, method, engine="auto", **options):
        key = (dataset, formula, method, engine, tuple(sorted(options.items())))
        if key not in fits:
            fits[key] = lmmfast.lmm(
                formula, load(dataset), reml=method == "REML", engine=engine, **options
            )
        return fits[key]

    return fit
