"""Read folders of Pascal VOC annotations: labelImg's, VOC2012's tree, Roboflow's export.

XML files and images may be anywhere below the folder. Pixels count from 1 and a box includes its
last ones (VOC2012's development kit, section 3), so xmin - 1 and xmax are its edges. labelImg and
others write edges, counted from 0: ``pixel_origin`` 0. Darknet's voc_label.py subtracts 1 from all
corners, and so makes boxes a pixel smaller than VOC's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.interchange import class_lists, kinds
from oiyolo.interchange.frames import BoxError, choose_frame, rotation_of
from oiyolo.interchange.imported import ImportedBox, ImportedImage, Problem
from oiyolo.interchange.source_files import (
    FolderReader,
    ImageIndex,
    find_files,
    nearest,
    nothing_found_error,
    read_limited,
    split_of_folders,
    split_of_word,
    stem_of,
    with_boxes,
)
from oiyolo.interchange.voc_xml import MAX_BYTES, XmlError, parse_voc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.interchange.frames import LabelledFrame
    from oiyolo.interchange.imported import ReadOptions, Split
    from oiyolo.interchange.source_files import SourceFiles
    from oiyolo.interchange.voc_xml import VocAnnotation, VocObject

_SUFFIX: Final = ".xml"
_SETS: Final = "imagesets/main/"


class VocReader(FolderReader):
    """Reads a folder of Pascal VOC annotations.

    Raises:
        UsageError: It is not a folder.
        InputFormError: It contains no XML file.
    """

    def __init__(self, folder: Path, options: ReadOptions) -> None:
        self._source = find_files(folder)
        self._options = options
        self._annotations = self._source.with_suffix(_SUFFIX)
        if not self._annotations:
            images = len(self._source.images)
            raise nothing_found_error(
                self.folder, "XML files of labelImg or VOC in it or below it", f"{images:,} images"
            )

    def class_order(self) -> Sequence[str]:
        """Return the names in ``classes.txt``, ``obj.names`` or a label map; empty without one."""
        lists = class_lists.find_class_lists(self._source)
        return class_lists.read_class_list(self._source.path(lists[0])) if lists else []

    def read(self) -> Iterator[ImportedImage | Problem]:
        """Yield each image that has an annotation, and the problems."""
        yield from self._source.problems
        index = ImageIndex(self._source.images)
        splits = _read_splits(self._source)
        used: set[str] = set()
        for name in self._annotations:
            yield from self._read_one(name, index, used, splits.get(stem_of(name), ""))
        for name in self._source.images:
            if name not in used:
                path = self._source.path(name)
                yield Problem(kinds.NO_LABEL, path, 0, "no XML file belongs to it", "image")

    def _read_one(
        self, name: str, index: ImageIndex, used: set[str], split: Split
    ) -> Iterator[ImportedImage | Problem]:
        """Yield the image of an annotation, and the problems with it.

        Args:
            name: The XML file.
            index: The images.
            used: The images that have an annotation, to which the image is added.
            split: Split of the image in VOC's lists; empty if they do not name it.
        """
        path = self._source.path(name)
        try:
            annotation = parse_voc(read_limited(path, MAX_BYTES))
        except XmlError as error:
            yield Problem(kinds.BROKEN, path, error.line, str(error), "file")
            return
        except OSError as error:
            yield Problem(kinds.BROKEN, path, 0, str(error.strerror), "file")
            return
        candidates = _images_of(name, annotation, index)
        if len(candidates) != 1 or candidates[0] in used:
            yield _no_image_problem(path, annotation, candidates)
            return
        used.add(candidates[0])
        split = split or split_of_folders(candidates[0])
        yield from self._convert(path, annotation, candidates[0], split)

    def _convert(
        self, path: Path, annotation: VocAnnotation, image: str, split: Split
    ) -> Iterator[ImportedImage | Problem]:
        header = self._source.header(image)
        if isinstance(header, Problem):
            yield header
            return
        frame = choose_frame(header, annotation.size_wh, self._options.exif)
        if frame.note:
            size = "{}x{}".format(*header.stored_wh)
            yield Problem(frame.note, path, 0, f"{image} has {size} pixels as stored")
        origin = self._options.pixel_origin
        items = [_convert_object(item, frame, origin, path) for item in annotation.objects]
        yield from with_boxes(
            ImportedImage(
                self._source.path(image), image, header.stored_wh, rotation_of(header), split
            ),
            items,
        )


def _images_of(name: str, annotation: VocAnnotation, index: ImageIndex) -> Sequence[str]:
    """Return the images that an annotation may belong to.

    The stem of the XML file decides before the names in it, which are those of the author's machine
    and often out of date. Old versions of labelImg leave out their suffix.
    """
    for file_name in (annotation.file_name, annotation.path_name):
        candidates = (
            index.with_stem(stem_of(name))
            or index.with_name(file_name)
            or index.with_stem(file_name)
        )
        if candidates:
            return nearest(candidates, name, file_name)
    return ()


def _no_image_problem(path: Path, annotation: VocAnnotation, candidates: Sequence[str]) -> Problem:
    """Return the problem with an annotation that does not belong to exactly one free image."""
    if len(candidates) == 1:
        return Problem(kinds.TWICE, path, 0, f"{candidates[0]} has another annotation", "file")
    if candidates:
        return Problem(kinds.AMBIGUOUS, path, 0, ", ".join(sorted(candidates)[:3]), "file")
    named = annotation.file_name or annotation.path_name
    return Problem(kinds.NO_IMAGE, path, 0, f"no image has its name, or the name {named!r}", "file")


def _convert_object(
    item: VocObject, frame: LabelledFrame, pixel_origin: int, path: Path
) -> ImportedBox | Problem:
    """Return an object's box, or why it is skipped."""
    if not item.name:
        return Problem(kinds.MALFORMED, path, item.line, "an object without a name", "box")
    x1, y1, x2, y2 = item.corners
    if x1 >= x2 or y1 >= y2:
        shown = f"{item.name}: {x1:g}, {y1:g} to {x2:g}, {y2:g}"
        return Problem(kinds.NO_AREA, path, item.line, shown, "box")
    try:
        xyxy = frame.to_stored((x1 - pixel_origin, y1 - pixel_origin, x2, y2))
    except BoxError as error:
        return Problem(error.kind, path, item.line, f"{item.name}: {error}", "box")
    return ImportedBox(
        item.name,
        xyxy,
        occluded=item.flag("occluded"),
        truncated=item.flag("truncated"),
        difficult=item.flag("difficult"),
        line=item.line,
    )


def _read_splits(source: SourceFiles) -> Mapping[str, Split]:
    """Return the splits in VOC's ``ImageSets/Main`` by the stem of the image.

    ``trainval`` counts only for images that neither ``train`` nor ``val`` lists.
    """
    splits: dict[str, Split] = {}
    for word in ("train", "val", "test", "trainval"):
        split = split_of_word(word.removesuffix("val") or word)
        for name in source.with_suffix(".txt"):
            if f"/{name}".lower().endswith(f"/{_SETS}{word}.txt"):
                text = class_lists.read_small_text(source.path(name), "a list of images")
                stems = (line.split()[0] for line in text.splitlines() if line.strip())
                for stem in stems:
                    splits.setdefault(stem, split)
    return splits
