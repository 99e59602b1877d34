"""Parse Pascal VOC's annotations, as labelImg and others write them.

Only a document type can declare entities, which make a small document large or name other files. An
annotation needs none, so a document that has one is refused before it is parsed; that it is UTF-8
then, whatever it declares, makes this safe. defusedxml does the same in Python, event by event, and
takes twice as long as the parser. Everything else is bounded by the size of the file.
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from oiyolo.interchange.frames import parse_number
from oiyolo.interchange.imported import LineError

if TYPE_CHECKING:
    from oiyolo.interchange.frames import Corners
    from oiyolo.interchange.imported import Flag

MAX_BYTES: Final = 4 << 20
"""About 10,000 objects, far more than the annotation of one image needs."""
_ROOT: Final = "annotation"
_FLAGS: Final[dict[str, Flag]] = {"": -1, "unspecified": -1, "0": 0, "false": 0, "no": 0}
"""Values of flags in lower case; all others mean that it is set."""
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_PARENTS: Final = frozenset({"size", "bndbox"})
_DOCUMENT_TYPE: Final = b"<!DOCTYPE"
_OBJECT: Final = re.compile(rb"<object[\s>]", re.IGNORECASE)
_ENCODING: Final = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.-]+)["']""")


class XmlError(LineError):
    """A document is not an annotation."""


@dataclass(slots=True)
class VocObject:
    """An object of an annotation.

    Attributes:
        line: Line on which it begins.
        texts: Texts of its elements by their path in lower case, such as "bndbox/xmin".
    """

    line: int
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its class; empty if it has none."""
        return self.texts.get("name", "")

    @property
    def corners(self) -> Corners:
        """Its box as written: xmin, ymin, xmax, ymax; ``nan`` for what is missing."""
        x1, y1, x2, y2 = (parse_number(self.texts.get(f"bndbox/{name}", "")) for name in _CORNERS)
        return x1, y1, x2, y2

    def flag(self, name: str) -> Flag:
        """Return a flag; -1 if it is missing or empty."""
        return _FLAGS.get(self.texts.get(name, "").lower(), 1)


@dataclass(slots=True)
class VocAnnotation:
    """An annotation.

    Attributes:
        texts: Texts of its elements by their path, such as "size/width".
        objects: Its objects.
    """

    texts: dict[str, str] = field(default_factory=dict)
    objects: list[VocObject] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """Last part of ``filename``, whichever slashes it has; empty if it has none."""
        return _last_part(self.texts.get("filename", ""))

    @property
    def path_name(self) -> str:
        """Last part of ``path``, which is a path on the author's machine."""
        return _last_part(self.texts.get("path", ""))

    @property
    def size_wh(self) -> tuple[int, int] | None:
        """The size that it states; ``None`` if it states none."""
        texts = [self.texts.get(f"size/{side}", "") for side in ("width", "height")]
        width, height = map(parse_number, texts)
        return (int(width), int(height)) if math.isfinite(width + height) else None


def parse_voc(content: bytes) -> VocAnnotation:
    """Parse an annotation of at most ``MAX_BYTES``.

    Raises:
        XmlError: It is not well-formed, has a document type, or is something else.
    """
    content = _to_utf8(content)
    if (at := content.find(_DOCUMENT_TYPE)) >= 0:
        raise XmlError("a document type is not allowed", content.count(b"\n", 0, at) + 1)
    try:
        root = ET.fromstring(content, ET.XMLParser(encoding="utf-8"))  # noqa: S314  (see above)
    except ET.ParseError as error:
        raise XmlError(str(error).partition(":")[0], error.position[0]) from None
    if root.tag.lower() != _ROOT:
        raise XmlError(f"<{root.tag[:40]}> is not Pascal VOC's <{_ROOT}>", 1)
    annotation = VocAnnotation(_texts(root))
    objects = [element for element in root if element.tag.lower() == "object"]
    starts = [match.start() for match in _OBJECT.finditer(content)]
    are_found = len(starts) == len(objects)  # a comment may contain one
    for element, at in zip(objects, starts if are_found else [-1] * len(objects), strict=True):
        line = content.count(b"\n", 0, at) + 1 if are_found else 0
        annotation.objects.append(VocObject(line, _texts(element)))
    return annotation


def _texts(element: ET.Element) -> dict[str, str]:
    """Return the texts below an element, those of children of ``_PARENTS`` by their paths."""
    texts: dict[str, str] = {}
    for child in element:
        tag = child.tag.lower()
        if tag in _PARENTS:
            for grandchild in child:
                path = f"{tag}/{grandchild.tag.lower()}"
                texts.setdefault(path, (grandchild.text or "").strip())
        else:
            texts.setdefault(tag, (child.text or "").strip())
    return texts


def _to_utf8(content: bytes) -> bytes:
    """Return a document in UTF-8, whatever encoding it declares."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf-16"
    else:
        declared = _ENCODING.match(content)
        name = declared[1].decode("ascii").lower() if declared else "utf-8"
    if name in {"utf-8", "utf8", "us-ascii"}:
        return content
    try:
        return content.decode(name).encode()
    except (LookupError, ValueError):
        raise XmlError(f"not in the encoding that it declares, {name}", 1) from None


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
