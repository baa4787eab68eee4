"""Load the one build of the kernels that suits this machine.

The extension is compiled once per instruction set (all of them in a wheel, that of the machine when
built from source); exactly one build is loaded. The environment
variable ``LMMFAST_CPU`` (``base``, ``v3`` or ``v4``) pins a level: results agree between levels to
rounding, not to the last bit.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any


def _check_interpreter() -> None:
    """Refuse subinterpreters: the kernels' signals and locks know one interpreter only.

    Raises
    ------
    ImportError
    """
    found = (importlib.util.find_spec(name) for name in ("_interpreters", "_xxsubinterpreters"))
    spec = next((spec for spec in found if spec), None)  # CPython 3.13, or before
    if spec is None:
        return
    current: Any = importlib.import_module(spec.name).get_current()
    if int(current[0] if isinstance(current, tuple) else current) != 0:
        raise ImportError(
            "lmmfast cannot be used in a subinterpreter: use threads or processes instead"
        )


_check_interpreter()
_cpu: Any = importlib.import_module("lmmfast._cpu")

__all__ = ["built_levels", "core", "level", "load", "usable_levels"]

LEVELS = ("base", "v3", "v4")


def built_levels() -> list[str]:
    """Instruction sets that this installation was built for, slowest first."""
    return [level for level in LEVELS if importlib.util.find_spec(f"lmmfast._core_{level}")]


def usable_levels() -> list[str]:
    """Instruction sets that this machine can run and this installation was built for."""
    runs = _cpu.levels()
    return [level for level in built_levels() if level in runs]


def load(level: str | None = None) -> tuple[ModuleType, str]:
    """Import the kernels.

    Parameters
    ----------
    level : str, optional
        Instruction set; by default ``LMMFAST_CPU`` or else the fastest usable one.

    Returns
    -------
    module, level

    Raises
    ------
    ImportError
        The level is not usable here, or none is.
    """
    levels = usable_levels()
    if not levels:
        raise ImportError(
            f"lmmfast was built for {', '.join(built_levels()) or 'no instruction set'}, and this "
            f"machine runs {', '.join(_cpu.levels())}: install it from source on this machine, or "
            "with the environment variable LMMFAST_LEVELS=all for every machine"
        )
    wanted = level or os.environ.get("LMMFAST_CPU") or levels[-1]
    if wanted not in levels:
        raise ImportError(
            f"LMMFAST_CPU={wanted!r} is not usable here; this machine and installation offer "
            f"{', '.join(levels)}"
        )
    return importlib.import_module(f"lmmfast._core_{wanted}"), wanted


if TYPE_CHECKING:
    from lmmfast import _core as core

    level: str
else:
    core, level = load()
