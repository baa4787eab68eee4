"""Tests run side by side, a process for each core: libraries of linear algebra get one thread in each.

Their threads wait in loops for each other, and with more of them than cores tests take many times as
long. Threads of lmmfast itself stay as they are.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
