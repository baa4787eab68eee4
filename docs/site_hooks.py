"""What the site needs beyond MkDocs: links to files of the source as text, and llms.txt."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]*)(?:#[^)]*)?\)")
_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Unlink what lies outside docs/; in the code of tables take the backslash from pipes."""
    depth = len(PurePosixPath(page.file.src_uri).parts) - 1

    def unlinked(match: re.Match[str]) -> str:
        return match[1] if match[2].count("../") > depth else match[0]

    def bare_pipes(row: re.Match[str]) -> str:
        return _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0])

    return _ROW.sub(bare_pipes, _LINK.sub(unlinked, markdown))


def on_post_build(*, config: Any, **_: Any) -> None:
    """Write llms.txt: the pages by section, as links to their Markdown, which lies beside them."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    docs, site = Path(config.docs_dir), Path(config.site_dir)
    for section in config.nav:
        ((title, pages),) = section.items()
        lines += [f"## {title}", ""]
        for entry in [{title: pages}] if isinstance(pages, str) else pages:
            ((name, source),) = entry.items()
            copy = site / "markdown" / source
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text((docs / source).read_text(encoding="utf-8"), encoding="utf-8")
            lines.append(f"- [{name}]({config.site_url.rstrip('/')}/markdown/{source})")
        lines.append("")
    (site / "llms.txt").write_text("\n".join(lines), encoding="utf-8")
