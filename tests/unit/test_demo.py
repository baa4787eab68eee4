"""The demonstration: its numbers are the fits', its picture is a picture."""

import sys

import pytest

from lmmfast import demo
from lmmfast.cli import main


@pytest.fixture(scope="module")
def data():
    return demo.load()


@pytest.fixture(scope="module")
def fits(data):
    return demo.fit_all(data)


@pytest.fixture(scope="module")
def text(data, fits):
    return demo.report(data, fits)


def flat(text):
    return " ".join(text.split())


def test_known_likelihoods(fits):
    expected = {
        ("intercept", "ML"): -505.92354982,
        ("intercept", "REML"): -509.56255095,
        ("slope", "ML"): -505.64672578,
        ("slope", "REML"): -509.29065811,
    }
    assert {key: round(fit.llf, 8) for key, fit in fits.items()} == expected


def test_all_fits_are_listed(text):
    assert "random intercept            ML      -505.924  1021.85" in text
    assert "random intercept and slope  REML    -509.291  1032.58" in text
    assert "-1.064 (0.135)  0.674 (0.084)" in text


def test_holds_the_summary(text, fits):
    assert str(fits["intercept", "REML"].summary()) in text


def test_change_over_time(text, fits):
    fit = fits["intercept", "REML"]
    low, high = fit.conf_int().loc["log_time"]
    assert f"days^{fit.params['log_time']:.2f} (95% interval {low:.2f} to {high:.2f})" in flat(text)
    assert "multiplied by 0.48 (0.40 to 0.58)" in flat(text)
    assert 2 ** fit.params["log_time"] == pytest.approx(0.48, abs=5e-3)


def test_effect_of_the_baseline(text, fits):
    fit = fits["intercept", "REML"]
    low, high = fit.conf_int().loc["log_titer_baseline"]
    assert "1.60 times (1.42 to 1.79)" in flat(text)
    assert f"The power is 0.67 ({low:.2f} to {high:.2f})" in flat(text)
    assert "66% lies between infants" in flat(text)


def test_boundary_and_choice_of_the_model(text):
    assert "converged on the boundary: the correlation of Intercept and log_time" in flat(text)
    assert "This is no failure" in flat(text)
    assert "Prefer the random intercept alone: AIC 1029.1 against 1032.6" in flat(text)
    assert "likelihood ratio of the ML fits, 0.55, gives p = 0.61" in flat(text)
    assert "Stram and Lee 1994" in flat(text)


def test_fits_88_ascii_columns(text):
    assert max(map(len, text.splitlines())) <= 88
    assert text.isascii()


def test_command_writes_the_picture(tmp_path, capsys, text):
    from matplotlib.image import imread

    out = tmp_path / "new" / "folder"
    assert main(["demo", "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    assert printed.startswith(text)
    assert printed.endswith(f"\n{out / 'hepatitis.png'}\n")
    image = imread(out / "hepatitis.png")
    height, width = image.shape[:2]
    assert width > 1000 and height > 500
    assert image[..., :3].std() > 0.05  # not blank


def test_picture_has_all_infants_and_both_panels(data, fits, tmp_path, monkeypatch):
    from lmmfast import plots
    from lmmfast.plots.axes import LINE, OBSERVED, SUBJECT

    made = []
    monkeypatch.setattr(plots, "figure", lambda *size: made.append(_figure(*size)) or made[-1])
    demo.picture(fits["intercept", "REML"], data, tmp_path / "p.png")
    low, high = made[0].axes
    curves = [line for ax in (low, high) for line in ax.get_lines()]
    assert sum(line.get_color() == SUBJECT for line in curves) == 106
    seen = [len(line.get_xdata()) for line in curves if line.get_color() == OBSERVED]
    assert sum(seen) == 288
    middle = [line.get_ydata().mean() for line in curves if line.get_color() == LINE]
    assert middle[0] < middle[1]  # a higher baseline, a higher line
    assert "up to 1,100 mIU/ml (53 infants)" in low.get_title()
    assert low.get_legend() is not None


def _figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def test_without_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    printed, err = capsys.readouterr()
    assert "No picture: pictures need matplotlib" in printed
    assert "pip install 'lmmfast[plots]'" in flat(printed)
    assert err == "" and list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file" / "sub")]) == 1
    assert capsys.readouterr().err.startswith("lmmfast: error: ")
