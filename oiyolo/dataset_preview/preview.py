"""Everything to look at, made when something is new, and left alone when nothing is."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.dataset_preview import page
from oiyolo.dataset_preview.contact_sheets import sheets
from oiyolo.dataset_preview.sampling import choose

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from oiyolo.dataset_preview.facts import Facts
    from oiyolo.dataset_preview.sampling import Chosen

_log = logging.getLogger("oiyolo")

INDEX: Final = "index.html"
_STAMP: Final = ".looked-from.json"
_JPEG: Final = {"quality": 88, "subsampling": 0}  # coloured letters blur when colours are halved
_OURS: Final = re.compile(r"(train|valid|test|smallest|largest|duplicates|rotated-\d+)\.jpg")
_GONE: Final = "gone"


def look(facts: Facts, folder: Path) -> list[Path]:
    """Leave contact sheets, charts and a page that shows them.

    Pictures that cannot be read are grey cells that say so. A second call with the same facts and
    the same images does nothing; what is no longer there to show is removed.

    Args:
        facts: The dataset; with no image at all nothing is made.
        folder: Where all goes; made when it is missing.

    Returns:
        The files, the page first.
    """
    if not facts.splits:
        return []
    chosen = choose(facts)
    made_from = _made_from(facts, chosen)
    stamp = folder / _STAMP
    reason = staleness.stale_reason(stamp, made_from)
    if reason is None and (before := _all_there(folder)):
        return before
    _log.info("look: %s", reason or "a picture is gone")
    stamp.unlink(missing_ok=True)
    files.remove_parts(folder)
    made = _save_sheets(facts, chosen, folder)
    _remove_others(folder, made)
    from oiyolo.dataset_preview.charts import save_charts  # noqa: PLC0415  (matplotlib is slow)

    made += save_charts(facts, folder)
    more = chosen.rotated_total - sum(map(len, chosen.rotated))
    html = page.render(facts, [path.name for path in made], more)
    files.write_text(folder / INDEX, html, durable=False)
    made.insert(0, folder / INDEX)
    staleness.write(stamp, {**made_from, "files": [path.name for path in made]})
    return made


def _made_from(facts: Facts, chosen: Chosen) -> dict[str, object]:
    shown = sorted(chosen.image_ids(facts))
    pixels = {i: _digest(facts.image_path(i)) for i in shown}
    return {
        **facts.fingerprint(),
        "the images": staleness.fingerprint(pixels),
        "version": __version__,
    }


def _digest(path: Path) -> str:
    try:
        return files.sha256_of(path)
    except OSError:
        return _GONE


def _all_there(folder: Path) -> list[Path]:
    """Give what the stamp says was made; nothing if any of it is gone."""
    stamp = files.read_json(folder / _STAMP)
    paths = [folder / name for name in stamp.get("files", [])]
    return paths if all(path.is_file() for path in paths) else []


def _save_sheets(facts: Facts, chosen: Chosen, folder: Path) -> list[Path]:
    made = []
    for sheet in sheets(facts, chosen):
        path = folder / f"{sheet.name}.jpg"
        _save_jpeg(sheet.draw(), path)
        made.append(path)
    return made


def _save_jpeg(picture: Image.Image, path: Path) -> None:
    with files.whole_file(path, durable=False) as part:
        picture.save(part, format="JPEG", **_JPEG)


def _remove_others(folder: Path, made: list[Path]) -> None:
    """Remove sheets of an earlier look that have nothing to show now."""
    kept = {path.name for path in made}
    for path in folder.glob("*.jpg"):
        if _OURS.fullmatch(path.name) and path.name not in kept:
            path.unlink(missing_ok=True)
