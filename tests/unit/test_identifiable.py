"""Models whose parameters the data cannot tell apart: the messages, and fits in spite of it."""

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf


@pytest.fixture(scope="module")
def stools() -> pd.DataFrame:
    """Nine subjects who got up once from each of four types of stool (as nlme's ergoStool)."""
    rng = np.random.default_rng(1)
    effort = 10 + np.repeat(rng.normal(size=9), 4) + rng.normal(size=36)
    subjects = np.repeat([f"S{k}" for k in range(9)], 4)
    return pd.DataFrame({"effort": effort, "Subject": subjects, "Type": list("ABCD") * 9})


# -- messages about arrays -------------------------------------------------------------------------


def _message(*args: object, **options: object) -> str:
    with pytest.raises(lf.NotIdentifiableError) as caught:
        lf.fit(*args, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_messages_about_arrays_name_what_the_user_gave(stools: pd.DataFrame) -> None:
    y, X = stools["effort"].to_numpy(), np.ones((36, 1))
    Z = pd.get_dummies(stools["Type"]).to_numpy(float)
    subject, stool = stools["Subject"], stools["Type"]
    text = _message(y, X, subject, Z=Z)
    assert "var(z3|group), var(Residual) apart: 'group' has too few rows per group" in text
    assert "(group is 'Subject', z0 is column 0 of Z, " in text
    assert text.endswith("z3 is column 3 of Z)")
    assert "group is" not in _message(y, X, subject.to_numpy(), Z=Z)
    assert "group is 'Subject'" in _message(y, X, subject.to_frame(), Z=Z)
    text = _message(y, X, subject, Z=Z, z_names=list("ABCD"), group_name="person")
    assert "var(D|person)" in text and text.endswith("(person is 'Subject')")
    text = _message(y, X, subject.to_numpy(), Z=Z, z_names=list("ABCD"), group_name="person")
    assert " is " not in text.split("structure")[-1]
    # Several factors: by their names, or by their places in the list.
    text = _message(y, X, [subject.to_numpy(), stool], Z=[None, Z])
    assert text.startswith("the data say nothing about cov(z0,z1|group2)")
    assert text.endswith("(group2 is 'Type', z0 is column 0 of its Z, z1 is column 1 of its Z)")
    text = _message(y, X, [subject.to_numpy(), stool.to_numpy()], Z=[None, Z])
    assert "(group2 is groups[1], " in text
    text = _message(y, X, stools[["Subject", "Type"]], Z=[None, Z])
    assert "cov(z0,z1|Type)" in text and "Type is" not in text


def test_messages_about_formulas_need_no_legend(stools: pd.DataFrame) -> None:
    with pytest.raises(lf.NotIdentifiableError, match=r"simpler covariance structure$"):
        lf.lmm("effort ~ Type + (Type | Subject)", stools)
