"""Small, well-known data sets, one function each.

Every function reads its CSV file anew and returns a fresh :class:`pandas.DataFrame`, so it may be
changed freely. Measurements are numbers; factors are ``category`` columns whose levels are in
alphabetical order (the first is the baseline of treatment coding). Numeric-looking labels carry a
letter and leading zeros (``S308``, ``T175``), so no factor can be mistaken for a number.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "bodyweight",
    "cake",
    "dyestuff",
    "dyestuff2",
    "exam",
    "hepatitis",
    "hepatitis_sim",
    "multicentre",
    "names",
    "orthodont",
    "ovary",
    "oxide",
    "pastes",
    "penicillin",
    "sleepstudy",
]


def names() -> list[str]:
    """Names of the data sets, each the name of a function of this module.

    Returns
    -------
    list of str
        In alphabetical order.
    """
    return [name for name in __all__ if name != "names"]


def _load(name: str, *factors: str) -> pd.DataFrame:
    """Read ``<name>.csv`` from the package, the columns ``factors`` as categories."""
    import pandas as pd

    with resources.files(__name__).joinpath(f"{name}.csv").open(encoding="utf-8") as stream:
        return pd.read_csv(stream, dtype=dict.fromkeys(factors, "category"))


def hepatitis() -> pd.DataFrame:
    """Antibody titres of 106 infants after a hepatitis B booster, 288 visits.

    Each infant was seen two or three times after the booster. Two questions are asked: how does
    the titre change after the booster, and how does the titre before it affect the level?

    Returns
    -------
    pandas.DataFrame
        288 rows with the columns

        - ``infant``: number of the infant, 1 to 106 (integer)
        - ``log_days``: natural logarithm of the time in days, as published
        - ``log_titer_baseline``: log anti-HBs titre at the baseline measurement (titres in mIU/ml)
        - ``log_titer``: log anti-HBs titre at this visit, the response

    References
    ----------
    W. R. Gilks, C. C. Wang, B. Yvonnet and P. Coursaget (1993), Random-effects models for
    longitudinal data using Gibbs sampling, *Biometrics* 49, 441-453. Values of the EPI study in
    the Gambia, as in the BUGS example "Hepatitis: a normal hierarchical model with measurement
    error".
    """
    return _load("hepatitis")


def hepatitis_sim() -> pd.DataFrame:
    """Titres of 118 infants at 259 visits, simulated after the pattern of :func:`hepatitis`.

    30 of the infants have one visit only. Simulated with slope -0.95 for ``logtime``, 0.55 for
    ``logbase``, standard deviations 0.95 of the intercept, about 0.446 of the slope, 0.62 of the
    residual.

    Returns
    -------
    pandas.DataFrame
        259 rows with the columns

        - ``logtiter``: log titre at the visit, the response (unit-free)
        - ``logtime``: log time in days since the booster
        - ``logtime_c``: ``logtime`` - 5.5
        - ``logbase``: log titre before the booster
        - ``infant``: label ``I001`` to ``I118`` (category)
    """
    return _load("hepatitis_sim", "infant")


def sleepstudy() -> pd.DataFrame:
    """Reaction times of 18 people kept short of sleep for ten days, 180 observations.

    Returns
    -------
    pandas.DataFrame
        180 rows with the columns

        - ``Reaction``: average reaction time in milliseconds, the response
        - ``Days``: days in the study, 0 to 9
        - ``Subject``: label ``S308`` to ``S372`` (category, 18 levels)

    References
    ----------
    G. Belenky et al. (2003), Patterns of performance degradation and restoration during sleep
    restriction and subsequent recovery: a sleep dose-response study, *Journal of Sleep Research*
    12, 1-12. As ``lme4::sleepstudy``.
    """
    return _load("sleepstudy", "Subject")


def orthodont() -> pd.DataFrame:
    """Growth of a distance in the skull of 27 children, four visits each, 108 observations.

    Returns
    -------
    pandas.DataFrame
        108 rows with the columns

        - ``distance``: pituitary to pterygomaxillary fissure in millimetres, the response
        - ``age``: age in years, 8, 10, 12 or 14
        - ``Subject``: label ``F01`` to ``F11``, ``M01`` to ``M16`` (category)
        - ``Sex``: ``Female`` or ``Male`` (category)

    References
    ----------
    R. F. Potthoff and S. N. Roy (1964), A generalized multivariate analysis of variance model
    useful especially for growth curve problems, *Biometrika* 51, 313-326. As ``nlme::Orthodont``.
    """
    return _load("orthodont", "Subject", "Sex")


def dyestuff() -> pd.DataFrame:
    """Yield of dyestuff from six batches of an intermediate product, 30 observations.

    Returns
    -------
    pandas.DataFrame
        30 rows with the columns

        - ``Yield``: yield in grams of standard colour, the response
        - ``Batch``: batch of the intermediate product, ``A`` to ``F`` (category)

    References
    ----------
    O. L. Davies and P. L. Goldsmith, editors (1972), *Statistical Methods in Research and
    Production*, 4th edition, section 6.4. As ``lme4::Dyestuff``.
    """
    return _load("dyestuff", "Batch")


def dyestuff2() -> pd.DataFrame:
    """Made-up data of the shape of :func:`dyestuff` whose batch variance is estimated as zero.

    Batches differ less than the rows within a batch do, so the estimate of the batch variance is
    exactly zero, by ML and by REML: a test of what a program does on the boundary.

    Returns
    -------
    pandas.DataFrame
        30 rows with the columns

        - ``Yield``: the response (unit-free)
        - ``Batch``: ``A`` to ``F`` (category)

    References
    ----------
    G. E. P. Box and G. C. Tiao (1973), *Bayesian Inference in Statistical Analysis*, section
    5.1.2. As ``lme4::Dyestuff2``.
    """
    return _load("dyestuff2", "Batch")


def pastes() -> pd.DataFrame:
    """Strength of a chemical paste: 10 batches, 3 casks of each, 2 assays a cask.

    Returns
    -------
    pandas.DataFrame
        60 rows with the columns

        - ``strength``: strength of the paste, the response
        - ``batch``: delivery batch, ``A`` to ``J`` (category)
        - ``cask``: cask within the batch, ``a`` to ``c`` (category); labels are used again in
          every batch, so cask ``a`` of batch ``A`` has nothing to do with cask ``a`` of ``B``

    References
    ----------
    O. L. Davies and P. L. Goldsmith, editors (1972), *Statistical Methods in Research and
    Production*, 4th edition, section 6.5. As ``lme4::Pastes``.
    """
    return _load("pastes", "batch", "cask")


def penicillin() -> pd.DataFrame:
    """Penicillin assays: each of 6 samples on each of 24 plates, 144 observations.

    Returns
    -------
    pandas.DataFrame
        144 rows with the columns

        - ``diameter``: diameter of the zone of inhibition in millimetres, the response
        - ``plate``: assay plate, ``a`` to ``x`` (category)
        - ``sample``: penicillin sample, ``A`` to ``F`` (category)

    References
    ----------
    O. L. Davies and P. L. Goldsmith, editors (1972), *Statistical Methods in Research and
    Production*, 4th edition, section 6.6. As ``lme4::Penicillin``.
    """
    return _load("penicillin", "plate", "sample")


def cake() -> pd.DataFrame:
    """Angle at which chocolate cakes break: a split-plot experiment with 270 cakes.

    Three recipes, 15 replicates (mixes) of each, and from every mix six cakes baked at six
    temperatures.

    Returns
    -------
    pandas.DataFrame
        270 rows with the columns

        - ``angle``: breaking angle in degrees, the response
        - ``recipe``: ``A``, ``B`` or ``C`` (category)
        - ``replicate``: ``R01`` to ``R15`` (category), used again in every recipe: the mix is
          ``recipe:replicate``
        - ``temperature``: baking temperature as a factor, ``T175`` to ``T225`` (category)
        - ``temp``: the same as a number, degrees Fahrenheit

    References
    ----------
    F. E. Cook (1938), *Chocolate cake, I. Optimum baking temperature*, Master's thesis, Iowa
    State College; W. G. Cochran and G. M. Cox (1957), *Experimental Designs*, 2nd edition, p. 300.
    As ``lme4::cake``.
    """
    return _load("cake", "recipe", "replicate", "temperature")


def oxide() -> pd.DataFrame:
    """Thickness of the oxide layer on silicon wafers: 8 lots, 3 wafers a lot, 3 sites a wafer.

    Returns
    -------
    pandas.DataFrame
        72 rows with the columns

        - ``Thickness``: thickness of the layer, the response
        - ``Source``: ``src1`` or ``src2`` (category), constant within a lot
        - ``Lot``: ``L1`` to ``L8`` (category)
        - ``Wafer``: wafer within the lot, ``W1`` to ``W3`` (category), labels used again
        - ``Site``: place on the wafer, ``p1`` to ``p3`` (category)

    References
    ----------
    R. C. Littell et al. (1996), *SAS System for Mixed Models*, p. 155; J. C. Pinheiro and D. M.
    Bates (2000), *Mixed-Effects Models in S and S-PLUS*, appendix A.20. As ``nlme::Oxide``.
    """
    return _load("oxide", "Source", "Lot", "Wafer", "Site")


def exam() -> pd.DataFrame:
    """Exam scores of 4059 pupils in 65 schools of inner London.

    Returns
    -------
    pandas.DataFrame
        4059 rows with the columns

        - ``normexam``: exam score at age 16, turned into normal scores, the response
        - ``standLRT``: standardised London Reading Test score at age 11
        - ``schavg``: mean intake score of the school
        - ``sex``: ``F`` or ``M`` (category)
        - ``school``: ``S01`` to ``S65`` (category)

    References
    ----------
    H. Goldstein et al. (1993), A multilevel analysis of school examination results, *Oxford
    Review of Education* 19, 425-433. As ``mlmRev::Exam``.
    """
    return _load("exam", "sex", "school")


def bodyweight() -> pd.DataFrame:
    """Body weight of 16 rats on three diets over nine weeks, 176 observations.

    Returns
    -------
    pandas.DataFrame
        176 rows with the columns

        - ``weight``: body weight in grams, the response
        - ``Time``: day of the measurement, 1 to 64
        - ``Rat``: ``R01`` to ``R16`` (category)
        - ``Diet``: ``D1``, ``D2`` or ``D3`` (category)

    References
    ----------
    D. Hand and M. Crowder (1996), *Practical Longitudinal Data Analysis*; J. C. Pinheiro and
    D. M. Bates (2000), *Mixed-Effects Models in S and S-PLUS*, appendix A.3. As
    ``nlme::BodyWeight``.
    """
    return _load("bodyweight", "Rat", "Diet")


def multicentre() -> pd.DataFrame:
    """Blood pressure in a trial with 24 centres, simulated: 589 patients, 2100 visits.

    Patients are numbered within their centre, as they are in trials: patient 1 of one centre is
    another person than patient 1 of the next, and the two are told apart by ``center/patient``.
    Some patients leave early, more often those whose pressure was high. Simulated by
    docs/make_multicentre.py with 152 mmHg at the beginning, -0.8 mmHg a month under placebo and
    -2.4 under treatment; standard deviations 5 between centres, 9 between the patients of a centre
    and 1.2 a month between their slopes (correlation -0.2), 6 of the residuals; centres have no
    slopes of their own.

    Returns
    -------
    pandas.DataFrame
        2100 rows with the columns

        - ``center``: label ``C01`` to ``C24`` (category)
        - ``patient``: number of the patient within the centre, from 1 (integer)
        - ``arm``: ``placebo`` or ``treatment`` (category)
        - ``month``: month of the visit, 0, 1, 2 or 4
        - ``sbp``: systolic blood pressure in mmHg, the response
    """
    return _load("multicentre", "center", "arm")


def ovary() -> pd.DataFrame:
    """Large ovarian follicles of 11 mares, counted daily over a cycle, 308 observations.

    Returns
    -------
    pandas.DataFrame
        308 rows with the columns

        - ``follicles``: number of follicles greater than 10 mm in diameter, the response
        - ``Mare``: ``M01`` to ``M11`` (category)
        - ``Time``: time in the oestrus cycle, scaled so that the ovulations are at 0 and 1
        - ``Index``: number of the observation within the mare, from 1
        - ``sin1``, ``cos1``: sine and cosine of 2 pi ``Time``

    References
    ----------
    R. A. Pierson and O. J. Ginther (1987), Follicular population dynamics during the estrus cycle
    of the mare, *Animal Reproduction Science* 14, 219-231. As ``nlme::Ovary``.
    """
    return _load("ovary", "Mare")
