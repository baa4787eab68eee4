"""Is an installed lmmfast whole? Run as a script, in an environment that holds nothing else.

Fits a data set with known answers with every build of the kernels that this machine can run, from
several threads at once. Fails unless the log-likelihoods are the known ones, and the same to the
last bit in all threads. In an interpreter without the GIL, importing lmmfast must leave it off.
"""

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor

import lmmfast as lf

FORMULA = "Reaction ~ Days + (Days | Subject)"
MARGINAL = "distance ~ age * Sex"
KNOWN_AR1 = -222.2937242878  # REML: gls of nlme agrees
KNOWN = {True: -871.8141359792, False: -875.9696722316}  # REML, ML: lme4 and nlme


def check_level() -> None:
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled(), "importing lmmfast switched the GIL on"
    data = lf.datasets.sleepstudy()
    for reml, known in KNOWN.items():
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: lf.lmm(FORMULA, data, reml=reml).llf, range(8)))  # noqa: B023
        assert abs(found[0] - known) < 1e-7, (reml, found[0], known)
        assert len(set(found)) == 1, found
    skulls = lf.datasets.orthodont()
    skulls["visit"] = (skulls["age"] - 6) // 2
    for engine in ("dense", "markov"):
        residual = lf.AR1("visit")
        fit = lf.lmm(MARGINAL, skulls, groups="Subject", residual=residual, engine=engine)
        assert abs(fit.llf - KNOWN_AR1) < 1e-7, (engine, fit.llf)
    print(f"smoke test: 4 fits as known, Python {sys.version.split()[0]}, {lf.build_info()}")


if __name__ == "__main__":
    if "LMMFAST_CPU" in os.environ:
        check_level()
    else:
        for level in lf.build_info()["cpu_usable"]:
            subprocess.run(
                [sys.executable, __file__], env=os.environ | {"LMMFAST_CPU": level}, check=True
            )
