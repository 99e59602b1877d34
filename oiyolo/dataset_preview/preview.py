"""Write a dataset's contact sheets, charts and page, unless they are up to date."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict
from urllib.parse import quote

from oiyolo import __version__
from oiyolo.core import files, records, staleness
from oiyolo.dataset_preview import page
from oiyolo.dataset_preview.contact_sheets import draw_sheets
from oiyolo.dataset_preview.pictures import gallery_items
from oiyolo.dataset_preview.sampling import choose_sample

if TYPE_CHECKING:
    from PIL import Image

    from oiyolo.dataset_preview.dataset import PreviewDataset
    from oiyolo.dataset_preview.sampling import Sample

_log = logging.getLogger("oiyolo")

INDEX: Final = "index.html"
_RECIPE_FILE: Final = ".looked-from.json"
_JPEG: Final = {"quality": 88, "subsampling": 0}  # chroma subsampling blurs coloured text
_SHEET_FILES: Final = re.compile(r"(train|valid|test|smallest|largest|duplicates|rotated-\d+)\.jpg")
_MISSING_IMAGE: Final = "gone"
"""Recorded instead of the checksum of an image that cannot be read."""


class _SavedRecipe(TypedDict):
    files: list[str]


def write_preview(dataset: PreviewDataset, folder: Path) -> list[Path]:
    """Write contact sheets, charts and a page that shows them.

    Images that cannot be read are shown as grey cells with a message. If the dataset and the images
    are unchanged, nothing is written. Sheets of an earlier preview that are no longer needed are
    removed.

    Args:
        dataset: The dataset; nothing is written if it has no images.
        folder: Output folder, which is created if it is missing.

    Returns:
        The files of the preview, the page first.
    """
    if not dataset.splits:
        return []
    sample = choose_sample(dataset)
    recipe = _recipe(dataset, sample)
    recipe_path = folder / _RECIPE_FILE
    reason = staleness.stale_reason(recipe_path, recipe)
    if reason is None:
        saved = records.find_intact(recipe_path, _SavedRecipe) or {"files": []}
        before = [folder / Path(name).name for name in saved["files"]]
        if before and all(path.is_file() for path in before):
            return before
    _log.info("preview: drawing contact sheets and charts: %s", reason or "a file is missing")
    recipe_path.unlink(missing_ok=True)
    files.remove_parts(folder)
    paths = [_save_jpeg(image, folder / f"{n}.jpg") for n, image in draw_sheets(dataset, sample)]
    for path in folder.glob("*.jpg"):  # sheets of an earlier preview
        if _SHEET_FILES.fullmatch(path.name) and path not in paths:
            path.unlink(missing_ok=True)
    from oiyolo.dataset_preview.charts import save_charts  # noqa: PLC0415  (slow to import)

    paths += save_charts(dataset, folder)
    images_url = quote(os.path.relpath(dataset.images_folder, folder))
    items = gallery_items(dataset, sample, images_url)
    html = page.render(dataset, [path.name for path in paths], items, sample.hidden_rotated)
    files.write_text(folder / INDEX, html, durable=False)
    paths.insert(0, folder / INDEX)
    staleness.write_recipe(recipe_path, {**recipe, "files": [path.name for path in paths]})
    return paths


def remove_preview(folder: Path) -> None:
    """Delete the page and its contact sheets; the charts stay, because they show no image."""
    sheets = [path for path in folder.glob("*.jpg") if _SHEET_FILES.fullmatch(path.name)]
    for path in (folder / _RECIPE_FILE, folder / INDEX, *sheets):
        path.unlink(missing_ok=True)


def _recipe(dataset: PreviewDataset, sample: Sample) -> dict[str, object]:
    image_ids = sorted(sample.image_ids(dataset))
    checksums = {i: _checksum(dataset.image_path(i)) for i in image_ids}
    return {
        **dataset.fingerprint(),
        "the images": staleness.fingerprint(checksums),
        "version": __version__,
    }


def _checksum(path: Path) -> str:
    try:
        return files.sha256_of(path)
    except OSError:
        return _MISSING_IMAGE


def _save_jpeg(image: Image.Image, path: Path) -> Path:
    with files.atomic_write(path, durable=False) as part:
        image.save(part, format="JPEG", **_JPEG)
    return path
