"""A Sphinx extension: the site's navigation, and pages and links that lead out of ``docs/``.

The pages are plain Markdown that GitHub shows, too, so what only the site needs is added here.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from docs._extensions import notebook_pages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sphinx.application import Sphinx

_FENCED_BLOCK: Final = re.compile(r"^(```+|~~~+).*?^\1[ ]*$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"(?P<label>!?\[(?:[^\[\]]|\[[^\[\]]*\])*\])\((?P<target>[^()\s]+)\)")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_LONG_CODE: Final = re.compile(r'(?<=<span class="pre">)[^<]{20,}')


def navigation(sections: Mapping[str, Sequence[str]]) -> str:
    """Return the tables of contents of the start page, one for each section, as MyST."""
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {title}\n\n{pages}\n```\n"
        for title, pages in ((title, "\n".join(pages)) for title, pages in sections.items())
    )


def relink(text: str, *, origin: Path, page: Path, root: Path, moved: Mapping[Path, Path]) -> str:
    """Return a page's text with links as the site needs them.

    Args:
        text: The page's Markdown. Code blocks are not changed.
        origin: The file for which its relative links are written.
        page: The file of the site's page.
        root: The repository's folder. A link to a folder in it becomes plain text.
        moved: The file of the site's page, by a file outside ``docs/`` that it shows.
    """

    def rewrite(match: re.Match[str]) -> str:
        path, hash_sign, anchor = match["target"].partition("#")
        if not path or _SCHEME.match(path):
            return match[0]
        target = Path(os.path.normpath(origin.parent / path))
        if target.is_dir() and target.is_relative_to(root):
            return match["label"][1:-1]
        target = moved.get(target, target)
        url = Path(os.path.relpath(target, page.parent)).as_posix()
        return f"{match['label']}({url}{hash_sign}{anchor})"

    parts, end = [], 0
    for block in _FENCED_BLOCK.finditer(text):
        parts += [LINK.sub(rewrite, text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(rewrite, text[end:])])


def _on_source_read(app: Sphinx, docname: str, source: list[str]) -> None:
    root = app.srcdir.parent
    shown = {app.srcdir / f"{d}.md": root / f for d, f in app.config.site_root_files.items()}
    page = app.srcdir / f"{docname}.md"
    origin = shown.get(page, page)
    if origin != page:
        app.env.note_dependency(origin)
        source[0] = origin.read_text(encoding="utf-8")
        if origin.suffix == ".ipynb":
            source[0] = notebook_pages.markdown(json.loads(source[0]))
    moved = {file: stub for stub, file in shown.items()}
    moved[root / "README.md"] = app.srcdir / "index.md"
    source[0] = relink(source[0], origin=origin, page=page, root=root, moved=moved)
    if docname == app.config.root_doc:
        source[0] += navigation(app.config.site_navigation)


def breakable(html: str) -> str:
    """Return HTML in which lines may break after an underscore or a slash in long words of code."""
    return _LONG_CODE.sub(lambda match: re.sub(r"(?<=\w[_/])(?=\w)", "<wbr>", match[0]), html)


def _on_page(_app: Sphinx, _name: str, _template: str, context: dict[str, Any], *_: Any) -> None:  # noqa: ANN401
    if "body" in context:
        context["body"] = breakable(context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_config_value("site_navigation", {}, "env", dict)
    app.add_config_value("site_root_files", {}, "env", dict)
    app.connect("source-read", _on_source_read)
    app.connect("html-page-context", _on_page)
    return {"parallel_read_safe": True}
