"""What is installed and what runs."""

from __future__ import annotations

from typing import Any


def build_info() -> dict[str, Any]:
    """Version, instruction sets (in use, built, usable here), and the default number of threads."""
    import lmmfast
    from lmmfast._dispatch import built_levels, level, usable_levels
    from lmmfast._threads import n_threads

    return {
        "version": lmmfast.__version__,
        "cpu": level,
        "cpu_built": built_levels(),
        "cpu_usable": usable_levels(),
        "threads": n_threads(),
    }
