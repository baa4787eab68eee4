"""Write the files of this release: ``python tests/golden/make.py``, once before each release.

Files of earlier releases are never written again: every later version must read them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lmmfast as lf

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from models import facts, models  # noqa: E402


def main() -> None:
    folder = HERE / lf.__version__
    folder.mkdir()
    expected = {}
    for name, fit in models().items():
        fit.save(folder / f"{name}.lmm")  # type: ignore[attr-defined]
        expected[name] = facts(name, fit)
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
