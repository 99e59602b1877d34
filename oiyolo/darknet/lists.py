"""Darknet's image lists: one path per line, each with its label file next to the image.

The lists in ``data/dataset`` have absolute paths, because darknet needs them. A copied or moved
project still has those of its old place, where there may be another project or nothing. So nothing
but darknet uses a list's folders: ``read`` returns the files of the project as it is now.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, image_ids
from oiyolo.core.batches import batched
from oiyolo.core.errors import InputFormError
from oiyolo.imagery import darknet_labels as labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

MIN_IMAGES: Final = 4
"""``darknet detector valid`` loads four images at once without checking that the list has four
(examples/detector.c, validate_detector)."""
REPAIR: Final = (
    "Delete the images and labels named here that exist, then run `oiyolo split`, which prepares "
    "them again"
)
"""What to do about damaged or missing files; prepare itself finds only those that are missing or
have another size."""

_SPLIT_AGAIN: Final = "Run `oiyolo split`, which writes the list again"
_SUFFIX: Final = ".jpg"
_BLOCK_IMAGES: Final = 2000
_MAX_EXAMPLES: Final = 3
_END_OF_JPEG: Final = b"\xff\xd9"
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def read(list_path: Path, images_folder: Path) -> list[str]:
    """Return the images of a list as paths in a folder, whatever folder the list names.

    Args:
        list_path: A list in ``data/dataset``.
        images_folder: The folder of the prepared images, as darknet is to see it.

    Raises:
        InputFormError: The list is missing or damaged.
    """
    return [f"{images_folder}/{image_id}{_SUFFIX}" for image_id in read_ids(list_path)]


def read_ids(list_path: Path, *, remedy: str = _SPLIT_AGAIN) -> list[str]:
    """Return the ids of the images in a list.

    Args:
        list_path: A list of ``data/dataset``, or a run's copy of it.
        remedy: What writes the list again.

    Raises:
        InputFormError: The list is missing or damaged.
    """
    try:
        lines = files.read_text(list_path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "text that is not UTF-8"
        raise _damaged_list_error(str(list_path), str(found), remedy) from None
    ids = ids_of(lines)
    for number, is_valid in enumerate(image_ids.are_valid(ids), start=1):
        if not is_valid:
            raise _damaged_list_error(f"{list_path}:{number}", repr(lines[number - 1][:200]), remedy)
    return ids


def ids_of(paths: Iterable[str]) -> list[str]:
    """Return the names of images without folder and suffix."""
    return [path.rpartition("/")[2].removesuffix(_SUFFIX) for path in paths]


def _damaged_list_error(where: str, found: str, remedy: str) -> InputFormError:
    return InputFormError(
        "cannot read a list of images",
        where=where,
        expected="paths that end in an ImageID and .jpg",
        found=found,
        remedy=remedy,
    )


def pad(paths: Sequence[str]) -> list[str]:
    """Return the list with its last image repeated until darknet can read it without crashing."""
    missing = MIN_IMAGES - len(paths)
    return [*paths, *[paths[-1]] * missing] if paths and missing > 0 else list(paths)


def adjacent_label(path: str) -> str:
    """Return the path of the label next to an image."""
    return f"{path.rpartition('.')[0]}.txt"


@dataclass(frozen=True)
class CheckedBlock:
    """The result of checking some images.

    Attributes:
        images: Number of images.
        boxes: Number of boxes in their labels.
        problems: The problems, each with the list and line or the label and line.
    """

    images: int
    boxes: int
    problems: Sequence[str]


@dataclass(frozen=True)
class ImageCheck:
    """The check of prepared images and their labels, before darknet reads them.

    Attributes:
        class_count: Number of classes.
        label_path: Function that returns where darknet looks for an image's label.
        image_bytes: Recorded size of each image by id; an image without one has to end like a JPEG.
    """

    class_count: int
    label_path: Callable[[str], str] = adjacent_label
    image_bytes: Mapping[str, int] = field(default_factory=dict)

    def check(self, images: Iterable[str], where: str) -> Iterator[CheckedBlock]:
        """Check images and labels, some at a time.

        Args:
            images: Their absolute paths, in order.
            where: The list that contains them, for the messages; empty if they are in none.
        """
        for block in batched(enumerate(images, start=1), _BLOCK_IMAGES):
            problems: list[str] = []
            paths, contents = [], []
            for number, path in block:
                # Text and file descriptors are faster than Path here, for a million images.
                label = self.label_path(path)
                content = b""
                problem = self._image_problem(path)
                if not problem:
                    content, problem = _read_label(path, label)
                if problem:
                    problems.append(f"{where}:{number}: {problem}" if where else problem)
                else:
                    paths.append(label)
                    contents.append(content)
            boxes = labels.count_boxes(contents, self.class_count)
            if boxes is None:
                lines = (line for content in contents for line in content.splitlines())
                boxes = sum(bool(line.strip()) for line in lines)
                for label, content in zip(paths, contents, strict=True):
                    errors = labels.label_errors(content, self.class_count)
                    problems += [f"{label}{error}" for error in errors]
            yield CheckedBlock(len(block), boxes, problems)

    def require(self, images: Sequence[str], list_path: Path) -> None:
        """Check all images of a list and their labels.

        Raises:
            InputFormError: There are problems; the error has their number and the first few.
        """
        blocks = self.check(images, list_path.name)
        problems = [problem for block in blocks for problem in block.problems]
        if problems:
            more = len(problems) - _MAX_EXAMPLES
            raise InputFormError(
                "prepared images or labels are missing or damaged",
                where=str(list_path),
                found="; ".join(problems[:_MAX_EXAMPLES]) + (f"; and {more:,} more" * (more > 0)),
                remedy=REPAIR,
            )

    def _image_problem(self, path: str) -> str:
        """Return why an image is not a complete JPEG; empty if it is one.

        The pixels are not decoded: ``prepare`` wrote them, and a file that was cut off or
        overwritten has another size or another end.
        """
        if not path:
            return "an empty line"
        try:
            descriptor = os.open(path, _FLAGS)
            try:
                status = os.fstat(descriptor)
                size = status.st_size
                is_file = stat.S_ISREG(status.st_mode)
                end = os.pread(descriptor, 2, max(size - 2, 0)) if is_file else b""
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            return f"{path!r} is not an image file ({_why(path, error)})"
        if not (is_file and size):
            return f"{path!r} is not an image file ({'empty' if is_file else _why(path)})"
        recorded = self.image_bytes.get(path[path.rfind("/") + 1 : -len(_SUFFIX)], size)
        if end == _END_OF_JPEG and size == recorded:
            return ""
        were = f", but {recorded:,} when it was prepared" if size != recorded else ""
        return f"{path!r} is not the complete JPEG that was prepared: it has {size:,} bytes{were}"


def _read_label(image: str, path: str) -> tuple[bytes, str]:
    """Return the content of an image's label, and why it cannot be read or an empty text."""
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                return os.read(descriptor, status.st_size), ""
        finally:
            os.close(descriptor)
        why = _why(path)
    except (OSError, ValueError) as error:
        why = _why(path, error)
    hint = ", where darknet looks for it because of the words in the path"
    place = path if path == adjacent_label(image) else f"{path}{hint}"
    return b"", f"{image.rpartition('/')[2]!r} has no label at {place} ({why})"


def _why(path: str, error: Exception | None = None) -> str:
    """Return why a file cannot be read."""
    try:
        os.close(files.open_regular(Path(path)))
    except (OSError, ValueError) as found:
        error = found
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
