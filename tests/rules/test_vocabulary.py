"""Wording: idioms that are not plain English or terms of the field do not occur."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

IDIOMS = {
    r'"""(Give|Tell|See)\b': "Return, Print, or what the function does",
    r"\b[Tt]old\b": "progress, message, summary, help_text, ...",
    r"\b[Aa]new\b": "again, or from scratch",
    r"\b[Ff]or ever\b": "permanently",
    r"\b[Ss]omebody\b": "another process, or who it is",
    r"\b(gone|goes|go|going|went) on (with|from)\b": "resume",
    r"\bbroke off\b": "was interrupted",
    r"(?<![Tt]here )\b(is|are) none\b(?! else)": "is missing, is empty, does not exist",
    r"(?<![Tt]here )\bis no (number|project|darknet|run|log|network)\b": "is not a ...",
    r"\b[Ss]o many\b": "the number of, at most `limit`",
    r"\bas told\b|\bis told of\b": "as configured, receives",
    r"\b[Ff]alse alarms?\b": "false positives",
    r"\bscore from\b": "threshold",
    r"\bload_or_complain\b": "load (raises) and find (returns None)",
    r"\bcame_on\b": "made_progress",
    r"\bpatiently\b": "with_retries",
    r"\b(dataset_look|demo_mirror|http_many|rowmap)\b": "the module's present name",
}
"""Patterns of such idioms, each with what to write instead."""

ALLOWED = {
    ("oiyolo/project/journals.py", '_OLD_KEYS: Final = {"told": "message"}'),
    (
        "oiyolo/project/ledger.py",
        '"""Before this format the column ``message`` of the events was called ``told``."""',
    ),
    (
        "oiyolo/project/ledger.py",
        '_MESSAGE_SINCE: ("ALTER TABLE events RENAME COLUMN told TO message",),',
    ),
    (
        "oiyolo/training/run.py",
        'return str(event.get("message", event.get("told", "")))  # older: "told"',
    ),
}
"""Lines that may hold an idiom, by file and text: they read the keys of older files."""


def texts() -> list[tuple[str, str]]:
    """Return path and text of the code, pages and notebooks that users and contributors read."""
    files = [
        *(ROOT / "oiyolo").rglob("*.py"),
        *(ROOT / "oiyolo").rglob("*.j2"),
        *(ROOT / "docs").rglob("*.md"),
        *(
            ROOT / name
            for name in ("README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
        ),
    ]
    pages = [(path, path.read_text(encoding="utf-8")) for path in files]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        pages.append((path, "\n".join("".join(cell["source"]) for cell in cells)))
    by_name = {path.relative_to(ROOT).as_posix(): text for path, text in sorted(pages)}
    # The changelog quotes keys and words of earlier versions, as code.
    by_name["CHANGELOG.md"] = re.sub(r"`[^`\n]*`", "", by_name["CHANGELOG.md"])
    return list(by_name.items())


TEXTS = texts()


@pytest.mark.parametrize("idiom", IDIOMS)
def test_an_idiom_does_not_occur(idiom: str) -> None:
    pattern = re.compile(idiom)
    hits = [
        f"{path}:{number}: {line.strip()}"
        for path, text in TEXTS
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line) and (path, line.strip()) not in ALLOWED
    ]
    assert not hits, f"write instead: {IDIOMS[idiom]}"


def test_allowed_lines_exist() -> None:
    lines = {(path, line.strip()) for path, text in TEXTS for line in text.splitlines()}
    assert lines >= ALLOWED


def test_two_public_classes_never_share_a_name() -> None:
    names = Counter(
        name
        for path, text in TEXTS
        if path.endswith(".py")
        for name in re.findall(r"^class ([A-Za-z]\w*)", text, re.MULTILINE)
    )
    assert [name for name, n in names.items() if n > 1] == []
