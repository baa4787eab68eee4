"""Instructions that the kernels execute, counted under valgrind, against the recorded counts.

Counts do not depend on how busy the machine is, so a slower kernel shows where timings drown in
noise. They do depend on the compiler: counts are kept by compiler and major version, and compared
only where there are any of the same. Needs valgrind, cmake, a C++20 compiler and Eigen; where
valgrind is missing or the machine is not x86-64 it says so and passes.

    python benchmarks/instructions/count.py            # 1 where a kernel executes 10 % more
    python benchmarks/instructions/count.py --update   # record what there is now
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
RECORDED = HERE / "counts.json"
LEVELS = ("base", "v3")  # valgrind does not know AVX-512
ALLOWED = 1.10


def output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(directory: Path) -> None:
    prefix = sysconfig.get_path("purelib")  # where pip puts Eigen
    output(
        "cmake", "-S", HERE, "-B", directory, "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_PREFIX_PATH={prefix}",
    )  # fmt: skip
    output("cmake", "--build", directory, "--parallel", "2")


def count(program: Path, kernel: str) -> int:
    """Instructions within the functions measure_…, and all that they call."""
    with tempfile.NamedTemporaryFile() as out:
        output(
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}",
            "--collect-atstart=no", "--toggle-collect=measure_*", program, kernel,
        )  # fmt: skip
        found = re.search(r"^(?:totals|summary): (\d+)", Path(out.name).read_text(), re.MULTILINE)
    counted = int(found[1]) if found else 0
    if counted == 0:
        sys.exit(f"{kernel}: nothing was counted; is measure_… still a function of its own?")
    return counted


def report(counts: dict[str, dict[str, int]], before: dict[str, dict[str, int]]) -> bool:
    """Print all counts beside the recorded ones; False where one is too large."""
    fine = True
    for level, kernels in counts.items():
        for kernel, found in kernels.items():
            known = before.get(level, {}).get(kernel)
            ratio = f"{found / known:6.3f}" if known else "   new"
            too_many = known is not None and found > ALLOWED * known
            fine = fine and not too_many
            mark = "  MORE THAN ALLOWED" if too_many else ""
            print(f"{level:5} {kernel:30} {found:12,d} {ratio}{mark}")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help=f"write {RECORDED.name}")
    arguments = parser.parse_args()
    if platform.machine() not in ("x86_64", "AMD64") or not shutil.which("valgrind"):
        print("instruction counts: skipped, they need valgrind on x86-64")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        build(Path(directory))
        programs = {level: Path(directory) / f"kernels_{level}" for level in LEVELS}
        compiler = output(programs["base"], "--compiler").strip()
        kernels = output(programs["base"], "--list").splitlines()
        counts = {
            level: {kernel: count(program, kernel) for kernel in kernels}
            for level, program in programs.items()
        }
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    fine = report(counts, recorded.get(compiler, {}))
    if arguments.update:
        RECORDED.write_text(json.dumps(recorded | {compiler: counts}, indent=2) + "\n")
        return 0
    if compiler not in recorded:
        print(f"instruction counts: none recorded for {compiler}, nothing to compare with")
        return 0
    if not fine:
        print("If it has to be so, record the new counts with --update and say why in the commit.")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
