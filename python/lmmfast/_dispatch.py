"""Load the one build of the kernels that suits this machine.

The extension is compiled once per instruction set; exactly one build is loaded. The environment
variable ``LMMFAST_CPU`` (``base``, ``v3`` or ``v4``) pins a level: results agree between levels to
rounding, not to the last bit.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from lmmfast import _cpu


def usable_levels() -> list[str]:
    """Instruction sets that this machine can run and this installation was built for."""
    built = (level for level in _cpu.levels() if importlib.util.find_spec(f"lmmfast._core_{level}"))
    return list(built)


def load(level: str | None = None) -> tuple[ModuleType, str]:
    """Import the kernels.

    Parameters
    ----------
    level : str, optional
        Instruction set; by default ``LMMFAST_CPU`` or else the fastest usable one.

    Returns
    -------
    module, level
    """
    levels = usable_levels()
    wanted = level or os.environ.get("LMMFAST_CPU") or levels[-1]
    if wanted not in levels:
        raise ImportError(
            f"LMMFAST_CPU={wanted!r} is not usable here; this machine and installation offer "
            f"{', '.join(levels)}"
        )
    return importlib.import_module(f"lmmfast._core_{wanted}"), wanted


core, level = load()
