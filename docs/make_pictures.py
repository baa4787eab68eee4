"""Make the pictures of the tutorial anew: ``python docs/make_pictures.py``.

Runs the examples of the page in docs/images, where they save their pictures.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

DOCS = Path(__file__).parent
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Run all examples in one namespace, as a reader would."""
    text = (DOCS / "tutorial_residuals.md").read_text(encoding="utf-8")
    os.chdir(DOCS / "images")
    namespace: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in _BLOCK.findall(text):
            exec(block, namespace)


if __name__ == "__main__":
    main()
