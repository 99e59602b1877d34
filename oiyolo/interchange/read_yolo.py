"""Read YOLO folders: darknet's lists, Yolo_mark, labelImg, Roboflow's exports, ultralytics' YAML.

The label of an image is where one of these tools puts it: in ``labels/`` where the image is in
``images/``, next to the image, or in a folder ``labels`` below its folder or the source's.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.core.output import printable
from oiyolo.imagery.exif import UPRIGHT
from oiyolo.inference import earlier
from oiyolo.interchange import class_lists, kinds, yolo_lists
from oiyolo.interchange.frames import rotation_of
from oiyolo.interchange.imported import ImportedImage, Problem
from oiyolo.interchange.source_files import (
    FolderReader,
    ImageIndex,
    find_files,
    folded,
    nothing_found_error,
    read_limited,
    split_of_folders,
    suffix_of,
    with_boxes,
)
from oiyolo.interchange.yolo_labels import MAX_BYTES, LabelForm, looks_like_label, parse_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.interchange.imported import ReadOptions, Split
    from oiyolo.interchange.source_files import SourceFiles

_SUFFIX: Final = ".txt"
_DATA_SUFFIX: Final = ".data"
_IMAGE_FOLDERS: Final = ("images", "jpegimages")
_LABELS: Final = "labels"
_UNNAMED_CLASSES: Final = tuple(map(str, range(10_000)))
_YAML_DEPTH: Final = 2


class YoloReader(FolderReader):
    """Reads a YOLO folder, or the folder that a YAML file of ultralytics describes.

    Raises:
        UsageError: It is neither a folder nor a YAML file.
        InputFormError: It contains no label, or its YAML file is damaged.
    """

    def __init__(self, folder: Path, options: ReadOptions) -> None:
        self._options = options
        self._yaml = yolo_lists.read_yaml(folder) if _is_yaml_file(folder) else None
        if self._yaml is None and _is_yaml_file(folder):
            raise InputFormError(
                "no dataset in the YAML file",
                where=printable(str(folder)),
                expected="the key names, as in ultralytics' datasets",
                remedy="Check the path",
            )
        self._source = find_files(self._yaml.root() if self._yaml else folder)
        self._yaml = self._yaml or _find_yaml(self._source)
        self._labels = _match_labels(self._source)
        if not self._labels:
            found = f"{len(self._source.images):,} images, {len(self._texts):,} .txt files"
            wanted = "images with YOLO labels next to them or in labels/"
            raise nothing_found_error(self.folder, wanted, found)

    @property
    def _texts(self) -> Sequence[str]:
        return self._source.with_suffix(_SUFFIX)

    def class_order(self) -> Sequence[str]:
        """Return the names in the lists of classes or the YAML file; empty without any."""
        if self._yaml is not None:
            return list(dict.fromkeys(self._yaml.names))
        return class_lists.merge_orders(list(self._names_by_folder.values()))

    def read(self) -> Iterator[ImportedImage | Problem]:
        """Yield each image that has a label, and the problems.

        Where lists or a YAML file name images, only those are read.
        """
        yield from self._source.problems
        splits = self._read_splits()
        if splits is not None:
            yield from splits.problems
            unlisted = sum(image not in splits.by_image for image in self._source.images)
            if unlisted:
                yield Problem(kinds.NOT_LISTED, self.folder, 0, f"{unlisted:,} images")
        if not self.class_order():
            yield Problem(kinds.NO_NAMES, self.folder, 0, "no classes.txt, obj.names or YAML file")
        predicted = _predicted_labels(self._source, list(self._labels.values()))
        for image in self._source.images:
            if splits is None or image in splits.by_image:
                listed = splits.by_image[image] if splits else ""
                yield from self._read_one(image, listed or split_of_folders(image), predicted)
        yield from self._labels_without_image()

    def _read_one(
        self, image: str, split: Split, predicted: set[str]
    ) -> Iterator[ImportedImage | Problem]:
        """Yield an image, and the problems with it."""
        path, label = self._source.path(image), self._labels.get(image)
        if label is None:
            yield Problem(
                kinds.NO_LABEL, path, 0, "an image without objects needs an empty one", "image"
            )
            return
        label_path = self._source.path(label)
        header = self._source.header(image)
        if isinstance(header, Problem):
            yield header
            return
        try:
            content = read_limited(label_path, MAX_BYTES)
        except OSError as error:
            yield Problem(kinds.BROKEN, label_path, 0, str(error.strerror), "image")
            return
        if header.orientation != UPRIGHT:
            size = "{}x{}".format(*header.stored_wh)
            yield Problem(kinds.EXIF_ASSUMED, path, 0, f"{size} pixels as stored")
        orientation = header.orientation if self._options.exif == "upright" else UPRIGHT
        form = self._form_of(label)
        is_predicted = label in predicted
        items = list(parse_label(content, label_path, form, orientation, is_predicted=is_predicted))
        yield from with_boxes(
            ImportedImage(path, image, header.stored_wh, rotation_of(header), split), items
        )

    def _form_of(self, label: str) -> LabelForm:
        """Return how to read a label: with the names nearest to it, in its folder or above."""
        if self._yaml is not None:
            return LabelForm(self._yaml.names, self._yaml.keypoint_fields)
        names = self._names_by_folder
        folder = label.rpartition("/")[0]
        while folder and folder not in names:
            folder = folder.rpartition("/")[0]
        if folder in names:
            return LabelForm(names[folder])
        return LabelForm(next(iter(names.values()), _UNNAMED_CLASSES))

    @cached_property
    def _names_by_folder(self) -> Mapping[str, Sequence[str]]:
        """The lists of classes by their folders, the one that a ``.data`` file names first."""
        named = [options.get("names", "") for _, options in self._data_files]
        found = [name for name in map(self._find_by_end, named) if name]
        by_folder: dict[str, Sequence[str]] = {}
        for name in [*found, *class_lists.find_class_lists(self._source)]:
            folder = name.rpartition("/")[0]
            if folder not in by_folder:
                by_folder[folder] = class_lists.read_class_list(self._source.path(name))
        return by_folder

    @cached_property
    def _data_files(self) -> Sequence[tuple[str, Mapping[str, str]]]:
        names = self._source.with_suffix(_DATA_SUFFIX)
        return [(name, yolo_lists.read_data_file(self._source.path(name))) for name in names]

    def _find_by_end(self, path: str) -> str:
        """Return the file that has the last part of a path as its name; empty if there is none."""
        last = folded(path.rpartition("/")[2])
        names = (n for n in self._source.names if folded(n.rpartition("/")[2]) == last)
        return next(names, "") if last else ""

    def _read_splits(self) -> yolo_lists.Splits | None:
        """Return the images that a YAML file or lists name; ``None`` if there are neither."""
        index = ImageIndex(self._source.images)
        splits = yolo_lists.Splits()
        if self._yaml is not None:
            for split, texts in self._yaml.parts.items():
                for text in texts:
                    yolo_lists.add_part(splits, self._source, self._yaml, index, (split, text))
            return splits if self._yaml.parts else None
        lists = self._image_lists()
        for name, split in lists:
            yolo_lists.add_list(splits, self._source, name, index, split)
        return splits if lists else None

    def _image_lists(self) -> list[tuple[str, Split]]:
        """Return the lists of images and their splits, in the order train, valid, test."""
        named: dict[str, Split] = {}
        for _, options in self._data_files:
            for key in ("train", "valid", "test"):
                if path := options.get(key, ""):
                    named.setdefault(path.rpartition("/")[2], key)
        used = set(self._labels.values())
        lists = [
            (name, yolo_lists.split_of_list(name, named))
            for name in self._texts
            if name not in used and yolo_lists.is_image_list(self._source, name)
        ]
        order = ("train", "valid", "test", "")
        return sorted(lists, key=lambda item: (order.index(item[1]), item[0]))

    def _labels_without_image(self) -> Iterator[Problem]:
        used = set(self._labels.values())
        for name in self._texts:
            if name in used or class_lists.is_class_list(name):
                continue
            path = self._source.path(name)
            if looks_like_label(yolo_lists.read_head(path)):
                yield Problem(kinds.NO_IMAGE, path, 0, "no image has its name", "file")


def _is_yaml_file(path: Path) -> bool:
    return yolo_lists.is_yaml(path.name) and path.is_file()


def _find_yaml(source: SourceFiles) -> yolo_lists.DataYaml | None:
    """Return the dataset of the uppermost YAML file that describes one."""
    names = [n for n in source.names if yolo_lists.is_yaml(n) and n.count("/") < _YAML_DEPTH]
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        if (data := yolo_lists.read_yaml(source.path(name))) is not None:
            return data
    return None


def _match_labels(source: SourceFiles) -> dict[str, str]:
    """Return the label of each image that has one."""
    texts = {folded(name): name for name in source.with_suffix(_SUFFIX)}
    labels = {}
    for image in source.images:
        stem = image[: -len(suffix_of(image))]
        for candidate in _label_places(folded(stem)):
            if (label := texts.get(candidate + _SUFFIX)) is not None:
                labels[image] = label
                break
    return labels


def _label_places(stem: str) -> Iterator[str]:
    """Yield where the label of an image may be, without suffix, the best place first."""
    folders = stem.split("/")
    for at in range(len(folders) - 2, -1, -1):
        if folders[at] in _IMAGE_FOLDERS:  # as ultralytics: the last one
            yield "/".join([*folders[:at], _LABELS, *folders[at + 1 :]])
            break
    yield stem
    yield "/".join([*folders[:-1], _LABELS, folders[-1]])
    yield f"{_LABELS}/{stem}"


def _predicted_labels(source: SourceFiles, labels: Sequence[str]) -> set[str]:
    """Return the labels that ``oiyolo predict`` wrote and that were not corrected since."""
    folders = {label[:at] for label in labels for at, sign in enumerate(label) if sign == "/"} | {
        ""
    }
    predicted: set[str] = set()
    for folder in sorted(folders):
        prefix = f"{folder}/" if folder else ""
        names = [label[len(prefix) :] for label in labels if label.startswith(prefix)]
        if earlier.has_record(source.path(folder)):
            predicted.update(prefix + n for n in earlier.replaceable(source.path(folder), names))
    return predicted
