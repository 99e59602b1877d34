"""``dataset.lock``: everything that decides a dataset, in one JSON file.

It has one row for each image, so that two versions can be compared line by line; the same dataset
always yields the same file. It is meant to be passed on, so nothing in it is trusted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from oiyolo import __version__
from oiyolo.core import files
from oiyolo.core.errors import InputFormError, NewerVersionError, UsageError
from oiyolo.core.image_ids import is_image_id
from oiyolo.label_errors.decisions import from_cells, to_cells
from oiyolo.net.buckets import is_bucket
from oiyolo.openimages.releases import SUBSETS
from oiyolo.project.config import read_options
from oiyolo.project.keys import KEYS, PUBLIC_SOURCES
from oiyolo.project.ledger import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.label_errors.decisions import ReviewRow

NAME: Final = "dataset.lock"
FORMAT: Final = 3
"""Format 3 has decisions about labels, and format 2 names imports; a lock has the oldest format
that says everything, which older versions read."""
DECISIVE: Final = frozenset(
    {
        *(key.name for key in KEYS if key.section == "dataset"),
        *("release", "skip_bad_rows", "size", "fit"),
        *(key.name for key in KEYS if key.section == "split" and key.name != "look"),
    }
)
"""Keys of ``oiyolo.toml`` that decide the dataset."""
_FORMAT_WITH_IMPORTS: Final = 2
_FIRST_FORMAT: Final = 1
OF_IMPORTS: Final = frozenset({"difficult"})
"""Those that decide only about imported boxes, and are missing in a lock without imports."""
PLACES: Final = ("base_url", "sources", "mirror_url")
"""Keys that say where its parts come from; another place may serve the same bytes."""
_FREEZE_AGAIN: Final = "Restore it from a copy, or write it again with `oiyolo freeze`"
_SHOWN: Final = 60
_HEX: Final = re.compile(r"[0-9a-f]+").fullmatch
_MD5_DIGITS: Final = 32
_SHA256_DIGITS: Final = 64
_MAX_NUMBER: Final = 2**53
_FULL_TURN: Final = 360


@dataclass(frozen=True)
class LockedImage:
    """One image of a frozen dataset.

    Attributes:
        image_id: ImageID.
        subset: Open Images' subset; that of its source, or nothing, for an imported image.
        split: Its split.
        source: Where it was fetched from: "mirror", "original", "thumbnail", ``gs://...``,
            ``import:...``, or "folder".
        size_bytes: Size of the fetched file.
        md5: MD5 of the fetched file, in hexadecimal; empty if unknown.
        rotation: Degrees counter-clockwise that make it upright, from 0 to 359.
        image_sha256: SHA-256 of the prepared image.
        label_sha256: SHA-256 of its label.
    """

    image_id: str
    subset: str
    split: str
    source: str
    size_bytes: int
    md5: str
    rotation: int
    image_sha256: str
    label_sha256: str


_COLUMNS: Final = (
    *("ImageID", "subset", "split", "source", "bytes", "md5", "rotation"),
    *("image_sha256", "label_sha256"),
)
"""Names of the values of a row, in the order of the fields of ``LockedImage``."""


@dataclass(frozen=True)
class LockedTable:
    """An official file that the dataset was selected from.

    Attributes:
        path: Its path relative to ``base_url``.
        md5: MD5 in hexadecimal; empty if unknown.
        sha256: SHA-256 in hexadecimal; empty if no copy was kept.
    """

    path: str
    md5: str
    sha256: str


@dataclass(frozen=True)
class DatasetLock:
    """A frozen dataset.

    Attributes:
        version: The oiyolo that wrote it.
        method: ``METHOD_VERSION`` of its preparation.
        options: Values of the keys in ``DECISIVE`` and ``PLACES``, JSON-compatible.
        labels: MIDs of each class, by its name.
        tables: The official files.
        withdrawn: Ids of withdrawn images, in order.
        files: SHA-256 of ``boxes.csv`` and ``obj.names``.
        images: The images, in order of ids.
        imports: Format of each import by its name; its images are not part of the lock.
        review: The decisions about labels of its images, as in ``data/review.csv``.
    """

    version: str
    method: int
    options: Mapping[str, object]
    labels: Mapping[str, Sequence[str]]
    tables: Sequence[LockedTable]
    withdrawn: Sequence[str]
    files: Mapping[str, str]
    images: Sequence[LockedImage]
    imports: Mapping[str, str] = field(default_factory=dict)
    review: Sequence[ReviewRow] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content."""
        return _digest(_content(self))[:16]

    def render(self) -> str:
        """Return the text of the file."""
        content = _content(self)
        lists = {
            "tables": content.pop("tables"),
            "withdrawn": content.pop("withdrawn"),
            **({"review": content.pop("review")} if self.review else {}),
            "columns": content.pop("columns"),
            "images": content.pop("images"),
        }
        lines = [f"{_json(name)}: {_json(value)}" for name, value in content.items()]
        lines += [_list_text(name, rows) for name, rows in lists.items() if name != "columns"]
        lines.insert(-1, f'"columns": {_json(lists["columns"])}')
        lines.append(f'"sha256": {_json(_digest(_content(self)))}')
        return "{\n" + ",\n".join(lines) + "\n}\n"


def _content(lock: DatasetLock) -> dict[str, Any]:
    """Return the JSON object of a lock, without its checksum."""
    return {
        "format": _format_of(lock),
        "oiyolo": lock.version,
        "method": lock.method,
        "options": dict(sorted(lock.options.items())),
        "labels": {name: list(mids) for name, mids in lock.labels.items()},
        **({"imports": dict(sorted(lock.imports.items()))} if lock.imports else {}),
        "files": dict(lock.files),
        "tables": [[table.path, table.md5, table.sha256] for table in lock.tables],
        "withdrawn": list(lock.withdrawn),
        **({"review": [list(to_cells(row)) for row in lock.review]} if lock.review else {}),
        "columns": list(_COLUMNS),
        "images": [list(vars(image).values()) for image in lock.images],
    }


def _format_of(lock: DatasetLock) -> int:
    if lock.review:
        return FORMAT
    return _FORMAT_WITH_IMPORTS if lock.imports else _FIRST_FORMAT


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list_text(name: str, rows: Sequence[object]) -> str:
    if not rows:
        return f"{_json(name)}: []"
    return f"{_json(name)}: [\n" + ",\n".join(map(_json, rows)) + "\n]"


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read(path: Path) -> DatasetLock:
    """Read a ``dataset.lock``, and check every value in it.

    Raises:
        UsageError: There is no such file.
        InputFormError: It was written by a newer oiyolo, or is damaged or edited; the error names
            the key or the row.
    """
    content = _parse(path)
    _check_format(path, content)
    reader = _Reader(path, content)
    lock = reader.lock()
    if content.get("sha256") != _digest(_content(lock)):
        raise _damaged(path, "its content differs from its own checksum (key sha256)")
    return lock


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = files.parse_json(files.read_text(path))
    except FileNotFoundError:
        raise UsageError(
            "no such file", where=str(path), remedy="`oiyolo freeze` writes a dataset.lock"
        ) from None
    except (ValueError, RecursionError) as error:  # the message of a JSON error has the line
        raise _damaged(path, str(error) or type(error).__name__) from None
    if not isinstance(content, dict):
        raise _damaged(path, "not a JSON object")
    return content


def _check_format(path: Path, content: Mapping[str, Any]) -> None:
    number, version = content.get("format"), content.get("oiyolo")
    if type(number) is not int or not isinstance(version, str):
        raise _damaged(path, "no valid format and oiyolo")
    if number > FORMAT:
        raise NewerVersionError(
            "the lock was written by a newer version of oiyolo",
            where=str(path),
            expected=f"format {FORMAT} or older (this is oiyolo {__version__})",
            found=f"format {number}, written by oiyolo {ascii(version)[1:-1][:_SHOWN]}",
            remedy="Install that version or a newer one",
        )


def _damaged(path: Path, found: str) -> InputFormError:
    return InputFormError(
        "the lock is damaged or was edited",
        where=str(path),
        expected="a file as `oiyolo freeze` wrote it",
        found=found,
        remedy=_FREEZE_AGAIN,
    )


class _Reader:
    """Reads the values of a parsed lock; every error names the key."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self._path, self._content = path, content

    def lock(self) -> DatasetLock:
        """Return the lock.

        Raises:
            InputFormError: A value is missing or invalid.
        """
        self._check(self._content.get("columns") == list(_COLUMNS), "columns")
        images = [self._image(n, row) for n, row in enumerate(self._list("images"))]
        ids = [image.image_id for image in images]
        for number, (before, image_id) in enumerate(itertools.pairwise(ids), start=1):
            self._check(before < image_id, f"images[{number}]", "is not in ascending order of ids")
        withdrawn, frozen_ids = self._list("withdrawn"), set(ids)
        for number, image_id in enumerate(withdrawn):
            is_valid = is_image_id(image_id) and image_id not in frozen_ids
            self._check(is_valid, f"withdrawn[{number}]")
        self._check(_is_number(self._content.get("method")), "method")
        return DatasetLock(
            version=str(self._content["oiyolo"]),
            method=self._content["method"],
            options=self._options(),
            labels=self._labels(),
            tables=[self._table(n, row) for n, row in enumerate(self._list("tables"))],
            withdrawn=withdrawn,
            files={name: self._hex(d, f"files.{name}") for name, d in self._dict("files").items()},
            images=images,
            imports=self._imports(),
            review=[self._review_row(n, row) for n, row in enumerate(self._reviews())],
        )

    def _check(self, is_valid: object, key: str, problem: str = "is missing or invalid") -> None:
        if not is_valid:
            raise _damaged(self._path, f"{key} {problem}")

    def _list(self, key: str) -> list[Any]:
        value = self._content.get(key)
        self._check(isinstance(value, list), key)
        return value  # type: ignore[return-value]  # checked

    def _dict(self, key: str) -> dict[str, Any]:
        value = self._content.get(key)
        self._check(isinstance(value, dict), key)
        return value  # type: ignore[return-value]  # checked

    def _options(self) -> dict[str, object]:
        """Return the options, checked as those of ``oiyolo.toml``."""
        options = self._dict("options")
        known = DECISIVE | {*PLACES}
        unknown = next((name for name in options if name not in known), None)
        self._check(unknown is None, f"options.{str(unknown)[:_SHOWN]}", "is not a key of a lock")
        required = sorted(DECISIVE - OF_IMPORTS)
        missing = next((name for name in required if name not in options), None)
        self._check(missing is None, f"options.{missing}")
        try:
            read_options(options)
        except UsageError as error:
            raise _damaged(self._path, f"options: {error.what}") from error
        sources = options.get("sources", [])
        # A folder of whoever wrote the lock would be one of this machine here.
        are_shared = isinstance(sources, list) and all(map(is_shared_source, sources))
        self._check(are_shared, "options.sources")
        return options

    def _imports(self) -> dict[str, str]:
        imports = self._dict("imports") if "imports" in self._content else {}
        for name, source_format in imports.items():
            is_valid = isinstance(source_format, str) and name.isprintable()
            self._check(is_valid, "imports")
        return imports

    def _reviews(self) -> list[Any]:
        return self._list("review") if "review" in self._content else []

    def _review_row(self, number: int, row: object) -> ReviewRow:
        key = f"review[{number}]"
        are_texts = isinstance(row, list) and all(isinstance(cell, str) for cell in row)
        self._check(are_texts, key)
        try:
            return from_cells(row, key)  # type: ignore[arg-type]  # checked
        except InputFormError as error:
            raise _damaged(self._path, f"{key} is invalid: {error.what}") from error

    def _labels(self) -> dict[str, list[str]]:
        labels = self._dict("labels")
        for name, mids in labels.items():
            are_texts = isinstance(mids, list) and all(isinstance(mid, str) for mid in mids)
            self._check(are_texts, f"labels.{ascii(name)[1:-1][:_SHOWN]}")
        return labels

    def _table(self, number: int, row: object) -> LockedTable:
        key = f"tables[{number}]"
        is_valid = isinstance(row, list) and list(map(type, row)) == [str, str, str]
        self._check(is_valid, key)
        path, md5, sha256 = map(str, row)  # type: ignore[call-overload]  # checked
        self._check(path.isprintable(), key)
        digests = ((md5, _MD5_DIGITS), (sha256, _SHA256_DIGITS))
        return LockedTable(path, *(self._hex(d, key, n, may_be_empty=True) for d, n in digests))

    def _image(self, number: int, row: object) -> LockedImage:
        key = f"images[{number}]"
        self._check(isinstance(row, list) and len(row) == len(_COLUMNS), key)
        values = dict(zip(_COLUMNS, row, strict=True))  # type: ignore[call-overload]  # checked
        for name, is_valid in _VALID_VALUES.items():
            self._check(is_valid(values[name]), f"{key}.{name}")
        return LockedImage(*values.values())

    def _hex(
        self, value: object, key: str, digits: int = _SHA256_DIGITS, *, may_be_empty: bool = False
    ) -> str:
        self._check(_is_hex(value, digits) or (may_be_empty and value == ""), key)
        return str(value)


def is_shared_source(name: object) -> bool:
    """Return whether a source is the same on every machine, as a folder is not."""
    return isinstance(name, str) and (name in PUBLIC_SOURCES or is_bucket(name))


def _is_hex(value: object, digits: int) -> bool:
    return isinstance(value, str) and len(value) == digits and _HEX(value) is not None


def _is_number(value: object, high: int = _MAX_NUMBER) -> bool:
    return type(value) is int and 0 <= value < high


_VALID_VALUES: Final[Mapping[str, Callable[[object], bool]]] = {
    "ImageID": is_image_id,
    "subset": lambda value: value in {*SUBSETS, ""},
    "split": lambda value: value in SPLITS,
    "source": lambda value: isinstance(value, str) and value.isprintable(),
    "bytes": _is_number,
    "md5": lambda value: value == "" or _is_hex(value, _MD5_DIGITS),
    "rotation": lambda value: _is_number(value, _FULL_TURN),
    "image_sha256": lambda value: _is_hex(value, _SHA256_DIGITS),
    "label_sha256": lambda value: _is_hex(value, _SHA256_DIGITS),
}
"""Whether a value of a row is valid, by its column."""
