"""Signals, processes, threads, pickles: what production does to a library."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import lmmfast as lf
from lmmfast.errors import DataError

RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(3000), 4)
X = np.column_stack([np.ones(GROUPS.size), RNG.standard_normal(GROUPS.size)])
Y = X @ [1.0, 2.0] + RNG.standard_normal(3000)[GROUPS] + RNG.standard_normal(GROUPS.size)


def fit(n_jobs=2):
    return lf.fit(Y, X, GROUPS, X, n_jobs=n_jobs)


def numbers(one) -> tuple:
    return (one.llf, *one.params, *one.theta, *one.random_effects.to_numpy()[:5].ravel())


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


FIT = """
import numpy as np, lmmfast as lf
r = np.random.default_rng(0); g = np.repeat(np.arange(50), 4); x = r.standard_normal(200)
f = lf.fit(x + r.standard_normal(50)[g], np.c_[np.ones(200), x], g)
"""


@pytest.mark.parametrize("value", ["two", "0", "-3", "1.5"])
def test_LMMFAST_NUM_THREADS_out_of_range(value):
    noisy = FIT.replace("x + r", "x + r.standard_normal(200) + r")
    result = run_python(noisy, LMMFAST_NUM_THREADS=value)
    assert result.returncode != 0
    assert "LMMFAST_NUM_THREADS" in result.stderr.splitlines()[-1]


def test_LMMFAST_CPU_unknown():
    result = run_python("import lmmfast; lmmfast.fit", LMMFAST_CPU="v9")
    assert result.returncode != 0
    last = result.stderr.splitlines()[-1]
    assert "ImportError" in last
    assert "LMMFAST_CPU='v9'" in last
    assert lf.build_info()["cpu"] in last


def test_LMMFAST_CPU_pins_a_build():
    slowest = lf.build_info()["cpu_usable"][0]
    code = "from lmmfast import _dispatch; print(_dispatch.level)"
    assert run_python(code, LMMFAST_CPU=slowest).stdout.strip() == slowest


def test_built_for_another_machine():
    code = "from lmmfast import _cpu; _cpu.levels = lambda: []; import lmmfast; lmmfast.fit"
    result = run_python(code)
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: lmmfast was built for {lf.build_info()['cpu_built'][0]}")
    assert "LMMFAST_LEVELS=all" in last


INTERRUPTED = """
import signal, sys, threading, time
import numpy as np, lmmfast as lf
r = np.random.default_rng(0)
m = {m}
g = np.repeat(np.arange(m), 5); n = g.size
X = r.standard_normal((n, {p})); X[:, 0] = 1
y = X[:, 1] + r.standard_normal(m)[g] + r.standard_normal(n)
Z = X[:, :3]
small = slice(0, 5000)
before = lf.fit(y[small], X[small], g[small], Z[small]).llf
threading.Thread(target=lambda: (time.sleep({wait}), raised.append(time.perf_counter()),
                 signal.raise_signal(signal.SIGINT)), daemon=True).start()
raised = []
try:
    while True:
        lf.fit(y, X, g, Z)
except KeyboardInterrupt:
    late = time.perf_counter() - raised[0]
    after = lf.fit(y[small], X[small], g[small], Z[small]).llf
    print(late, before == after)
"""


@pytest.mark.parametrize("wait", [0.05, 0.4, 1.1])
def test_ctrl_c(wait):
    """Within a second, at any moment of a fit of a million rows; the next fit is right."""
    result = run_python(INTERRUPTED.format(m=200_000, p=8, wait=wait))
    assert result.returncode == 0, result.stderr
    late, same = result.stdout.split()
    assert float(late) < 1.0
    assert same == "True"


def test_pickle():
    one = fit()
    again = pickle.loads(pickle.dumps(one))
    assert numbers(again) == numbers(one)
    np.testing.assert_array_equal(again.theta_cov, one.theta_cov)
    assert again.certificate == one.certificate
    assert str(again.summary()) == str(one.summary())
    rows = slice(0, 20)
    np.testing.assert_array_equal(
        again.predict(X[rows], level="conditional", groups=GROUPS[rows], Z=X[rows]),
        one.predict(X[rows], level="conditional", groups=GROUPS[rows], Z=X[rows]),
    )
    with pytest.raises(DataError, match="need the data"):
        _ = again.fittedvalues
    assert len(pickle.dumps(one)) < 1_000_000  # no data in it
    assert one.fittedvalues is not None  # pickling took nothing away


def test_remove_data():
    one = fit()
    want = numbers(one), one.theta_cov
    whole, one = one, one.remove_data()
    assert len(whole.fittedvalues) == whole.nobs  # as it was
    assert numbers(one) == want[0]
    np.testing.assert_array_equal(one.theta_cov, want[1])
    for lost in ("fittedvalues", "random_effects_cov"):
        with pytest.raises(DataError, match="need the data"):
            getattr(one, lost)


def _put_numbers(queue) -> None:
    queue.put(numbers(fit()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_after_a_fit():
    want = numbers(fit())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_put_numbers, args=(queue,))
    child.start()
    got = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert got == want
    assert numbers(fit()) == want


def test_several_fits_at_once():
    """From several Python threads, each with threads of its own: the same bits as one by one."""
    want = numbers(fit(1))
    with ThreadPoolExecutor(4) as pool:
        assert all(got == want for got in pool.map(lambda n: numbers(fit(n)), [1, 2, 3, 2, 5, 1]))


def test_fit_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(numbers(fit())))
    thread.start()
    thread.join(60)
    assert found == [numbers(fit())]
