"""Faults of the world around a fit: it ends at once or goes on, and the next fit has the same bits.

Every case is a process of its own. What is marked `campaign` takes minutes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENGINES = (
    "moments",
    "reference",
    "dense",
    "distances",
    "markov",
    "nested",
    "crossed",
    "fit_many",
    "lmm_by",
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="limits as on Linux")


def run(script: str, *options: str, timeout: float = 240, **values: object) -> str:
    """Output of a script of this folder's `engines`, in a new interpreter."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, *options, "-c", script, *map(str, values.values())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[-3000:])
    return done.stdout


INTERRUPTS = """
import random, signal, sys, threading, time
import engines
seed, times, kinds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
rng = random.Random(seed)
for kind in kinds:
    before = engines.small(kind)
    d = engines.data(engines.LARGE[kind])
    for _ in range(times):
        raised, wait = [], rng.uniform(0.02, 0.5)
        def stop():
            time.sleep(wait)
            raised.append(time.perf_counter())
            signal.raise_signal(signal.SIGINT)
        thread = threading.Thread(target=stop)
        try:
            thread.start()
            while True:
                engines.ENGINES[kind](d)
        except KeyboardInterrupt:
            late = time.perf_counter() - raised[0]
        thread.join()
        print(kind, round(wait, 3), late, engines.small(kind) == before)
"""


def check_interrupts(kinds, seed, times):
    lines = run(INTERRUPTS, seed=seed, times=times, kinds=",".join(kinds)).splitlines()
    assert len(lines) == times * len(kinds)
    for line in lines:
        _, _, late, same = line.split()
        assert float(late) < 1.0, line
        assert same == "True", line


def test_ctrl_c():
    check_interrupts(("dense", "markov", "nested", "crossed", "fit_many"), seed=1, times=1)


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ENGINES)
def test_ctrl_c_at_many_moments(kind):
    check_interrupts((kind,), seed=2, times=25)


MEMORY = """
import resource, sys
import engines
from lmmfast.errors import LmmError
rooms, kinds = [float(r) for r in sys.argv[1].split(",")], sys.argv[2].split(",")
large = {kind: engines.data(engines.LARGE[kind]) for kind in kinds}
before = {kind: engines.small(kind) for kind in kinds}
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
for kind in kinds:
    for room in rooms:
        pages = int(open("/proc/self/statm").read().split()[0])
        most = pages * resource.getpagesize() + int(room * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        try:
            engines.ENGINES[kind](large[kind])
            end = "fitted"
        except (MemoryError, LmmError) as error:
            end = "MemoryError" if isinstance(error, MemoryError) else repr(error)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        print(kind, room, engines.small(kind) == before[kind], end)
"""


def check_memory(kinds, rooms):
    """Ends of fits, by engine and by how much memory there is; each next fit is the same."""
    ends = {}
    for line in run(MEMORY, rooms=",".join(map(str, rooms)), kinds=",".join(kinds)).splitlines():
        kind, room, same, end = line.split(maxsplit=3)
        assert same == "True", line
        assert end in ("MemoryError", "fitted"), line
        ends[kind, float(room)] = end
    assert len(ends) == len(kinds) * len(rooms)
    return ends


@linux_only
def test_too_little_memory():
    ends = check_memory(("moments", "dense", "nested"), (1, 4))
    assert "MemoryError" in ends.values()


@linux_only
@pytest.mark.campaign
@pytest.mark.parametrize("kind", ENGINES)
def test_too_little_memory_by_many_amounts(kind):
    check_memory((kind,), (0, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256))


PROCESSES = """
import multiprocessing, sys, warnings
import engines
def work(kind):
    return engines.small(kind, n_jobs=2)
if __name__ == "__main__":
    warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
    method, kinds = sys.argv[1], sys.argv[2].split(",")
    want = [engines.small(kind, n_jobs=2) for kind in kinds]
    with multiprocessing.get_context(method).Pool(2) as pool:
        got = pool.map(engines.small, kinds)
    print(got == want, [engines.small(kind) for kind in kinds] == want)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes(method):
    kinds = ENGINES if method == "fork" else ("moments", "dense")
    assert run(PROCESSES, method=method, kinds=",".join(kinds)).split() == ["True", "True"]


THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import engines
n_threads, n_fits, kinds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
seeds = range(7)
def numbers(task):
    kind, seed, n_jobs = task
    return engines.ENGINES[kind](engines.data(60, seed), n_jobs=n_jobs).tobytes()
want = {(kind, seed): numbers((kind, seed, 1)) for kind in kinds for seed in seeds}
def wrong(thread):
    found = 0
    for k in range(n_fits):
        kind, seed = kinds[(thread + k) % len(kinds)], seeds[(3 * thread + k) % len(seeds)]
        found += numbers((kind, seed, 1 + k % 3)) != want[kind, seed]
    return found
with ThreadPoolExecutor(n_threads) as pool:
    print(sum(pool.map(wrong, range(n_threads))))
"""


def test_threads():
    kinds = "moments,dense,markov,nested,crossed,fit_many"
    assert run(THREADS, n_threads=8, n_fits=4, kinds=kinds) == "0\n"


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ENGINES)
def test_eight_threads_of_500_fits(kind):
    assert run(THREADS, timeout=1800, n_threads=8, n_fits=500, kinds=kind) == "0\n"


NO_THREADS = """
import os, resource, sys, threading
import engines
kinds = sys.argv[1].split(",")
want = [engines.small(kind, n_jobs=1) for kind in kinds]
def larger(n_jobs):
    d = engines.data(2000)
    return [engines.ENGINES[kind](d, n_jobs=n_jobs).tobytes() for kind in kinds]
large = larger(1)
if os.getuid() == 0:  # the limit does not hold for root
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    threading.Thread(target=print).start()
    print("started")
except RuntimeError:
    print([engines.small(kind, n_jobs=4) for kind in kinds] == want, larger(4) == large)
"""


@linux_only
def test_threads_that_cannot_be_started():
    """The calling thread does the work of those that the system refuses."""
    kinds = tuple(kind for kind in ENGINES if kind not in ("reference", "lmm_by"))
    output = run(NO_THREADS, kinds=",".join(kinds)).split()
    if output[-1] == "started":
        pytest.skip("the limit of processes does not hold here")
    assert output == ["True", "True"]


OPTIMISED = """
import hashlib, sys
import engines
numbers = b"".join(engines.small(kind) for kind in sys.argv[1].split(","))
print(sys.flags.optimize, hashlib.sha256(numbers).hexdigest())
"""


def test_without_docstrings_and_with_warnings_as_errors():
    kinds = ",".join(ENGINES)
    plain = run(OPTIMISED, kinds=kinds).split()
    assert run(OPTIMISED, "-OO", "-W", "error", kinds=kinds).split() == ["2", plain[1]]
