"""Read COCO folders: instances files next to folders of images, and Roboflow's exports.

Boxes are in pixels, and 0 is the left edge of an image. A group of objects (``iscrowd``) keeps its
box; segmentations are ignored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from oiyolo.interchange import kinds
from oiyolo.interchange.class_lists import merge_orders
from oiyolo.interchange.coco_json import CocoError, is_coco, read_coco
from oiyolo.interchange.frames import BoxError, choose_frame, rotation_of
from oiyolo.interchange.imported import ImportedImage, Problem
from oiyolo.interchange.source_files import (
    FolderReader,
    ImageIndex,
    find_files,
    leads_out,
    nearest,
    nothing_found_error,
    split_of_folders,
    split_of_word,
    stem_of,
    with_boxes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from oiyolo.interchange.coco_json import CocoBox, CocoFile, CocoImage
    from oiyolo.interchange.frames import LabelledFrame
    from oiyolo.interchange.imported import ImportedBox, ReadOptions, Split

_SUFFIX: Final = ".json"
_WORDS: Final = re.compile(r"[^\W_]+")


class CocoReader(FolderReader):
    """Reads a folder with COCO's JSON files, or one such file and the images around it.

    Raises:
        UsageError: It is neither a folder nor a file.
        InputFormError: It contains no such file.
    """

    def __init__(self, folder: Path, options: ReadOptions) -> None:
        self._options = options
        self._is_file = folder.is_file() and folder.suffix.lower() == _SUFFIX
        self._source = find_files(_images_folder(folder) if self._is_file else folder)
        names = self._source.with_suffix(_SUFFIX)
        if self._is_file:
            names = [n for n in names if self._source.path(n).samefile(folder)]
        self._names = [name for name in names if is_coco(self._source.path(name))]
        if not self._names:
            found = f"{len(self._source.images):,} images, {len(names):,} other JSON files"
            raise nothing_found_error(
                self.folder, "JSON files with images, annotations and categories", found
            )
        self._order: list[str] | None = None

    def class_order(self) -> Sequence[str]:
        """Return the categories in the order of the files, as far as these can be read."""
        if self._order is None:
            lists = []
            for name in self._names:
                content = self._read_file(name)
                if not isinstance(content, Problem):
                    lists.append(list(content.class_names.values()))
            self._order = merge_orders(lists)
        return self._order

    def read(self) -> Iterator[ImportedImage | Problem]:
        """Yield each image that a file lists, and the problems; one file is in memory at a time.

        Images that no file lists are problems, unless one file was named.
        """
        yield from self._source.problems
        index, used = ImageIndex(self._source.images), set[str]()
        for name in self._names:
            content = self._read_file(name)
            if isinstance(content, Problem):
                yield content
            else:
                yield from self._read_images(name, content, index, used)
        for image in self._source.images:
            if image not in used and not self._is_file:
                yield Problem(
                    kinds.NO_LABEL, self._source.path(image), 0, "no file lists it", "image"
                )

    def _read_file(self, name: str) -> CocoFile | Problem:
        path = self._source.path(name)
        try:
            return read_coco(path)
        except CocoError as error:
            return Problem(kinds.BROKEN, path, error.line, str(error), "file")
        except OSError as error:
            return Problem(kinds.BROKEN, path, 0, str(error.strerror), "file")

    def _read_images(
        self, name: str, content: CocoFile, index: ImageIndex, used: set[str]
    ) -> Iterator[ImportedImage | Problem]:
        """Yield the images of a file, and add their names to those that are used."""
        path = self._source.path(name)
        named_split = _split_of_file(name)
        for image in content.images:
            found = self._find_image(name, image, index)
            boxes = content.boxes.pop(image.number, [])
            if isinstance(found, Problem):
                yield found
            elif found in used:
                yield Problem(kinds.TWICE, path, 0, f"{found} is listed already", "file")
            else:
                used.add(found)
                split = named_split or split_of_folders(found)
                yield from self._convert(path, found, image, split, (boxes, content.class_names))
        for number, boxes in content.boxes.items():
            message = f"{len(boxes):,} annotations of the image {number}, which is not listed"
            yield Problem(kinds.NO_IMAGE, path, 0, message, "file")

    def _find_image(self, name: str, image: CocoImage, index: ImageIndex) -> str | Problem:
        path = self._source.path(name)
        file_name = image.file_name.replace("\\", "/")
        candidates = nearest(index.ending_with(file_name), _image_origin(name), file_name)
        if len(candidates) == 1:
            return candidates[0]
        kind = kinds.LEADS_OUT if not candidates and leads_out(file_name) else kinds.NO_IMAGE
        message = f"{file_name[:200]!r} ({len(candidates)} images have this name)"
        return Problem(kind, path, 0, message, "file")

    def _convert(
        self,
        path: Path,
        name: str,
        image: CocoImage,
        split: Split,
        labels: tuple[Sequence[CocoBox], dict[object, str]],
    ) -> Iterator[ImportedImage | Problem]:
        """Yield an image with its boxes, and the problems with it."""
        header = self._source.header(name)
        if isinstance(header, Problem):
            yield header
            return
        frame = choose_frame(header, image.stated_wh, self._options.exif)
        if frame.note:
            size = "{}x{}".format(*header.stored_wh)
            yield Problem(frame.note, path, 0, f"{name} has {size} pixels as stored")
        boxes, class_names = labels
        items = [_convert_box(box, class_names, frame, path) for box in boxes]
        image_path, rotation = self._source.path(name), rotation_of(header)
        yield from with_boxes(
            ImportedImage(image_path, name, header.stored_wh, rotation, split), items
        )


def _convert_box(
    box: CocoBox, class_names: dict[object, str], frame: LabelledFrame, path: Path
) -> ImportedBox | Problem:
    """Return an annotation's box, or why it is skipped."""
    shown = f"annotation {box.number}"
    name = class_names.get(box.category, "")
    if not name:
        return Problem(kinds.UNKNOWN_CLASS, path, 0, f"{shown}: category {box.category}", "box")
    if box.bbox is None:
        return Problem(kinds.MALFORMED, path, 0, f"{shown} has no bbox of four numbers", "box")
    x, y, width, height = box.bbox
    try:
        return box.to_box(name, frame.to_stored((x, y, x + width, y + height)))
    except BoxError as error:
        return Problem(error.kind, path, 0, f"{shown}: {error}", "box")


def _split_of_file(name: str) -> Split:
    """Return the split in the name of a JSON file or of its folder; empty without one."""
    words = [split_of_word(word) for word in _WORDS.findall(stem_of(name))]
    found = {split for split in words if split}
    return found.pop() if len(found) == 1 else split_of_folders(name)


def _image_origin(name: str) -> str:
    """Return a path in the folder where the images of a JSON file are expected.

    That is ``train2017/`` for ``annotations/instances_train2017.json``, and otherwise its folder.
    """
    words = [word for word in _WORDS.findall(stem_of(name)) if split_of_word(word)]
    folder, _, _ = name.rpartition("/")
    above = folder.rpartition("/")[0]
    if not words or not folder.lower().endswith("annotations"):
        return name
    return f"{above}/{words[-1]}/_".lstrip("/")


def _images_folder(path: Path) -> Path:
    """Return the folder with the images of a JSON file: above ``annotations``, else its folder."""
    return path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
