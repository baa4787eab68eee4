"""One thread for libraries of linear algebra: tests run side by side, a process for each core.

With more threads than cores theirs wait in loops for each other, and tests take many times as long.
Threads of lmmfast itself stay as they are.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
