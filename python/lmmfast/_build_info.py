"""What is installed and what runs."""

from __future__ import annotations

from typing import Any


def build_info() -> dict[str, Any]:
    """Version, instruction set in use, those usable here, and the default number of threads."""
    import lmmfast
    from lmmfast._dispatch import level, usable_levels
    from lmmfast._threads import n_threads

    return {
        "version": lmmfast.__version__,
        "cpu": level,
        "cpu_usable": usable_levels(),
        "threads": n_threads(),
    }
