"""What is imported when: a script that fits arrays does not wait for data frames and plots."""

import subprocess
import sys

import pytest

HEAVY = ("formulaic", "matplotlib", "narwhals", "pandas", "polars", "pyarrow")


def imported(code):
    """Top-level modules that a new interpreter has loaded after running `code`."""
    show = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-W", "error", "-c", f"{code}\n{show}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return set(done.stdout.split())


def test_import_loads_nothing():
    loaded = imported("import lmmfast; lmmfast.__version__; dir(lmmfast)")
    assert "lmmfast" in loaded
    assert not loaded & {*HEAVY, "scipy", "numpy"}


def test_entry_points_load_numpy_alone():
    loaded = imported("from lmmfast import D, DataError, LMMResult, build_info, fit, lmm")
    assert "numpy" in loaded
    assert not loaded & {*HEAVY, "scipy"}


ARRAYS = """
import numpy as np, lmmfast as lf
rng = np.random.default_rng(1)
t = np.tile(np.arange(5.0), 20)
y = rng.normal(size=100) + np.repeat(rng.normal(size=20), 5)
X = np.column_stack([np.ones(100), t])
groups = np.repeat(np.arange(20), 5)
"""


@pytest.mark.parametrize(
    "use",
    [
        "fit = lf.fit(y, X, groups, Z=X)",
        "fit = lf.fit(y, X, groups[::-1], weights=1 + t, D=lf.D.diag())",
    ],
)
def test_a_fit_of_arrays_needs_no_data_frames(use):
    assert not imported(f"{ARRAYS}\n{use}\nfit.llf, fit.group_labels") & set(HEAVY)


FIRST_FITS = """
from concurrent.futures import ThreadPoolExecutor
import lmmfast as lf
d = {"y": [1.0, 2.5, 3.0, 4.5, 4.0, 6.5], "x": [0.0, 1, 0, 1, 0, 1], "g": [1, 1, 2, 2, 3, 3]}
with ThreadPoolExecutor(8) as pool:
    llf = set(pool.map(lambda _: lf.lmm("y ~ x + (1 | g)", d).llf, range(8)))
assert len(llf) == 1, llf
"""


@pytest.mark.parametrize("attempt", range(3))
def test_threads_may_make_the_first_fits_at_once(attempt):
    """They import formulaic and the rest at the same moment."""
    command = [
        sys.executable,
        "-c",
        f"import sys\nsys.setswitchinterval(1e-{4 + attempt})\n{FIRST_FITS}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
