"""The pictures on panels: photographs as far as they exist, else the images that darknet reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from oiyolo.boxes import RIGHT_ANGLES
from oiyolo.core.errors import InputFormError
from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.imagery.upright import make_upright
from oiyolo.project.ledger import SPLITS
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.evaluation.panels import Pictures
    from oiyolo.project.project import Project

_MAX_SIDE_PX: Final = 640


def pictures_of(project: Project, paths: Sequence[str]) -> Pictures:
    """Return the function that returns the picture of an image by its id.

    If preparation stretched the images, boxes are the same fractions of a photograph as of what
    darknet reads, so the photograph is shown, at most 640 pixels wide and high.

    Args:
        project: The project.
        paths: Paths of the prepared images.
    """
    path_by_id = {Path(path).stem: Path(path) for path in paths}
    original_wh: dict[str, tuple[int, int]] = {}
    rotations: dict[str, int] = {}
    if prepare_stage.prepared_options(project)["fit"] == "stretch":
        with project.ledger(read_only=True) as ledger:
            original_wh = prepare_stage.source_sizes_wh(ledger, *SPLITS)
        rotations = select_stage.load(project).rotation_by_id

    def picture(image_id: str) -> Image.Image:
        size_wh = original_wh.get(image_id)
        if size_wh is None:
            return _read(path_by_id[image_id])
        scale = min(1.0, _MAX_SIDE_PX / max(size_wh))
        shown_wh = max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))
        photograph = project.images_folder / f"{image_id}.jpg"
        rotation = rotations.get(image_id)
        if rotation in RIGHT_ANGLES:
            try:
                content = make_upright(photograph, rotation, shown_wh, "stretch").jpeg
            except (OSError, UnreadableImageError):
                pass  # freed, or damaged since it was prepared
            else:
                return _open(io.BytesIO(content))
        return _read(path_by_id[image_id]).resize(shown_wh, Image.Resampling.BICUBIC)

    return picture


def _read(path: Path) -> Image.Image:
    try:
        return _open(path)
    except OSError as error:
        raise InputFormError(
            "an image of the split cannot be read",
            where=str(path),
            found=str(error),
            remedy="Delete the image and its label, then run `oiyolo split`, which prepares them "
            "again",
        ) from error


def _open(file: Path | io.BytesIO) -> Image.Image:
    with Image.open(file) as image:
        pixels: Image.Image = image.convert("RGB")
        return pixels
