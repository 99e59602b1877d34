"""What a YOLO source says about its classes and splits: ``.data`` files, lists, and YAML."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files
from oiyolo.core.errors import InputFormError
from oiyolo.core.output import printable
from oiyolo.imagery.decode import IMAGE_SUFFIXES
from oiyolo.interchange import kinds
from oiyolo.interchange.class_lists import read_small_text
from oiyolo.interchange.imported import Problem
from oiyolo.interchange.source_files import leads_out, split_of_word, stem_of, suffix_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.interchange.imported import Split
    from oiyolo.interchange.source_files import ImageIndex, SourceFiles

_YAML_SUFFIXES: Final = (".yaml", ".yml")
_KEYS: Final = (("train", "train"), ("val", "valid"), ("valid", "valid"), ("test", "test"))
_HEAD_BYTES: Final = 4096
_PATTERN_CHARACTERS: Final = "*?["


@dataclass
class Splits:
    """The images that lists or a YAML file name.

    Attributes:
        by_image: Split of each image by its relative path; images of no split are not read.
        problems: What is wrong with the lists.
    """

    by_image: dict[str, Split] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, image: str, split: Split, path: Path, line: int) -> None:
        """Add an image; the first split that it is in counts."""
        known = self.by_image.setdefault(image, split)
        if known != split and known and split:
            message = f"{image} is in {known} already"
            self.problems.append(Problem(kinds.IN_TWO_SPLITS, path, line, message))


@dataclass(frozen=True)
class DataYaml:
    """A dataset as ultralytics' YAML describes it.

    Attributes:
        path: The file.
        names: Names of the classes, in the order of their ids.
        folder: ``path`` of the file; empty if it has none.
        parts: Folders, lists or images of each split.
        keypoint_fields: Number of fields after each box.
    """

    path: Path
    names: Sequence[str]
    folder: str
    parts: Mapping[Split, Sequence[str]]
    keypoint_fields: int = 0

    def root(self) -> Path:
        """Return the folder of the dataset: ``path`` where it exists, else that of the file."""
        named = self.path.parent / self.folder
        return named if self.folder and named.is_dir() else self.path.parent


def is_yaml(name: str) -> bool:
    """Return whether a file is YAML, judged by its name."""
    return suffix_of(name) in _YAML_SUFFIXES


def read_yaml(path: Path) -> DataYaml | None:
    """Return the dataset that a YAML file describes; ``None`` if it describes something else.

    Raises:
        InputFormError: The file is not YAML, or the names are not a list or mapping of texts.
    """
    import yaml  # noqa: PLC0415  (only this format needs it)

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(read_small_text(path, "a YAML file"), loader)  # noqa: S506  (safe)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where is not None else ""
        found = str(getattr(error, "problem", "") or type(error).__name__)
        raise _yaml_error(f"{path}{line}", "YAML", found) from None
    if not isinstance(content, dict) or "names" not in content:
        return None
    parts = {split: _texts(content[key], key, path) for key, split in _KEYS if content.get(key)}
    return DataYaml(
        path,
        _names(content["names"], path),
        str(content.get("path") or ""),
        {split_of_word(split): texts for split, texts in parts.items()},
        _keypoint_fields(content.get("kpt_shape")),
    )


def _keypoint_fields(shape: object) -> int:
    """Return the number of fields that ``kpt_shape``, the number of points and of values, means."""
    sizes = shape if isinstance(shape, list) else []
    return math.prod(sizes) if sizes and all(isinstance(size, int) for size in sizes) else 0


def _texts(value: object, key: str, path: Path) -> list[str]:
    """Return the paths of a split: one, or a list of them."""
    items = value if isinstance(value, list) else [value]
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) < len(items):
        found = repr(next(item for item in items if not isinstance(item, str)))[:80]
        raise _yaml_error(str(path), f"{key}: a path, or a list of paths", found)
    return texts


def _names(value: Any, path: Path) -> list[str]:  # noqa: ANN401  (any YAML value)
    """Return names that are a list, or a mapping of ids from 0."""
    items = value
    if isinstance(value, dict):
        is_complete = set(value) == set(range(len(value)))
        items = [value[number] for number in range(len(value))] if is_complete else None
    if isinstance(items, list) and items and all(isinstance(i, (str, int, float)) for i in items):
        return [str(item).strip() for item in items]
    raise _yaml_error(str(path), "names: a list, or a mapping of 0, 1, 2, ...", repr(value)[:80])


def _yaml_error(where: str, expected: str, found: str) -> InputFormError:
    return InputFormError(
        "cannot read the dataset's YAML file",
        where=printable(where),
        expected=expected,
        found=printable(found),
        remedy="Correct the file",
    )


def read_data_file(path: Path) -> dict[str, str]:
    """Return the options of a darknet ``.data`` file: darknet ignores all blanks in a line."""
    lines = ("".join(line.split()) for line in read_small_text(path, "a .data file").splitlines())
    pairs = (line.partition("=") for line in lines if line and line[0] not in "#;")
    return {key: value.replace("\\", "/") for key, sign, value in pairs if sign}


def read_head(path: Path) -> bytes:
    """Return the beginning of a file; empty if it cannot be read."""
    try:
        with files.open_binary(path) as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def is_image_list(source: SourceFiles, name: str) -> bool:
    """Return whether the first line of a text file that is not empty names an image."""
    lines = read_head(source.path(name)).decode("utf-8", "replace").strip().splitlines()
    return bool(lines) and suffix_of(lines[0].strip()) in IMAGE_SUFFIXES


def add_list(
    splits: Splits, source: SourceFiles, name: str, index: ImageIndex, split: Split
) -> None:
    """Add the images that a list names.

    A list's paths are absolute on another machine, or relative to the folder in which darknet ran.
    So a path means the image with the most last parts in common, and never one elsewhere.
    """
    path = source.path(name)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if entry := line.strip().replace("\\", "/"):
                    _add_entry(splits, index, entry, split, (path, number))
    except OSError as error:
        splits.problems.append(Problem(kinds.NOT_FOUND, path, 0, str(error.strerror), "file"))


def _add_entry(
    splits: Splits, index: ImageIndex, entry: str, split: Split, where: tuple[Path, int]
) -> None:
    images = index.ending_with(entry)
    if len(images) == 1:
        splits.add(images[0], split, *where)
        return
    message = f"{printable(entry)[:200]} ({len(images)} images have this name)"
    kind = kinds.LEADS_OUT if not images and leads_out(entry) else kinds.NOT_FOUND
    splits.problems.append(Problem(kind, *where, message, "image"))


def add_part(
    splits: Splits, source: SourceFiles, data: DataYaml, index: ImageIndex, part: tuple[Split, str]
) -> None:
    """Add the images of a folder or list that a YAML file names.

    Roboflow writes ``../train/images`` for a folder next to the YAML file.
    """
    split, text = part
    for candidate in _candidates(source, data, text.replace("\\", "/")):
        prefix = f"{candidate}/" if candidate else ""
        inside = [name for name in source.images if name.startswith(prefix)]
        for image in inside:
            splits.add(image, split, data.path, 0)
        if name := source.find(candidate):
            add_list(splits, source, name, index, split)
        if inside or name:
            return
    kind = kinds.LEADS_OUT if leads_out(text) else kinds.NOT_FOUND
    message = f"{split}: {printable(text)[:200]} is not in {source.folder}"
    if any(character in text for character in _PATTERN_CHARACTERS):
        message += "; patterns are not expanded, so name the folder or a list"
    splits.problems.append(Problem(kind, data.path, 0, message, "image"))


def _candidates(source: SourceFiles, data: DataYaml, text: str) -> Iterator[str]:
    """Yield what a path in a YAML file may mean, as paths relative to the source's folder."""
    for folder in (f"{data.path.parent}/{data.folder}", str(data.path.parent), str(source.folder)):
        relative = os.path.relpath(os.path.normpath(f"{folder}/{text}"), source.folder)
        if text.startswith("/"):
            relative = os.path.relpath(os.path.normpath(text), source.folder)
        if relative != ".." and not relative.startswith("../"):
            yield "" if relative == "." else Path(relative).as_posix()
    stripped = [part for part in text.split("/") if part not in {"", ".", ".."}]
    yield "/".join(stripped)


def split_of_list(name: str, data_files: Mapping[str, Split]) -> Split:
    """Return the split of a list of images: what a ``.data`` file says, else what its name says.

    Args:
        name: Relative path of the list.
        data_files: Splits by the last part of the lists' paths in ``.data`` files.
    """
    return data_files.get(name.rpartition("/")[2]) or split_of_word(stem_of(name))
