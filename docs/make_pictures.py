"""Make the pictures of the pages anew: ``python docs/make_pictures.py``.

Runs the examples of the pages in docs/images, where they save their pictures.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

DOCS = Path(__file__).parent
PAGES = ("index.md", "tutorial_residuals.md", "tutorial_levels.md", "diagnostics.md")
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Run all examples of each page in one namespace, as a reader would."""
    texts = [(DOCS / page).read_text(encoding="utf-8") for page in PAGES]
    os.chdir(DOCS / "images")
    for text in texts:
        namespace: dict[str, object] = {}
        with contextlib.redirect_stdout(io.StringIO()):
            for block in _BLOCK.findall(text):
                exec(block, namespace)


if __name__ == "__main__":
    main()
