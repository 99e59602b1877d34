"""Write TFRecord files for TensorFlow's Object Detection API, without TensorFlow.

A record is a ``tf.train.Example`` with the keys of the API's ``TfExampleFields``
(https://github.com/tensorflow/models/blob/master/research/object_detection/core/standard_fields.py),
encoded by hand: three kinds of lists need no library of messages. Records are framed by their
length and by masked CRC-32C checksums
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details). The checksums
are computed by google-crc32c, in C, which google-cloud-storage needs anyway; tensorboard's record
writer is an extra, and its checksum in Python would take 5 ms for each image.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import struct
from typing import TYPE_CHECKING, Any, Final

import google_crc32c

from oiyolo.interchange.exported import SPLIT_NAMES, by_split

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from oiyolo.interchange.exported import (
        ExportedBox,
        ExportedDataset,
        ExportedImage,
        SplitSize,
    )

LABEL_MAP: Final = "label_map.pbtxt"
_SHARD_BYTES: Final = 200_000_000
"""About the size that TensorFlow's guide recommends for a shard."""
_CRC_MASK_DELTA: Final = 0xA282EAD8
_FORMATS: Final = {".jpg": b"jpeg", ".png": b"png"}
_DELIMITED: Final = 2
"""The wire type of a field with a length (https://protobuf.dev/programming-guides/encoding/)."""
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_ONE_BYTE: Final = 0x80
_UINT32: Final = 0xFFFFFFFF
_BYTES: Final = [bytes([value]) for value in range(_ONE_BYTE)]

_crc32c: Any = google_crc32c  # without types


def write(images: Iterable[ExportedImage], folder: Path, dataset: ExportedDataset) -> None:
    """Write ``<split>-00000-of-00010.tfrecord`` and ``label_map.pbtxt``.

    A box that is not a label has weight 0: it is not trained on, and evaluations find its
    attributes.
    """
    for split, group in by_split(images):
        _write_split(group, folder, split, dataset)
    (folder / LABEL_MAP).write_text(label_map_text(dataset.class_names), encoding="utf-8")


def shard_count(size: SplitSize) -> int:
    """Return the number of files into which a split is divided."""
    return max(1, min(size.images, round(size.bytes / _SHARD_BYTES)))


def file_pattern(split: str, size: SplitSize) -> str:
    """Return the pattern that matches the files of a split, as TensorFlow expands it."""
    return f"{SPLIT_NAMES[split]}-?????-of-{shard_count(size):05}.tfrecord"


def _write_split(
    images: Iterable[ExportedImage], folder: Path, split: str, dataset: ExportedDataset
) -> None:
    size = dataset.splits[split]
    pattern, shards = file_pattern(split, size), shard_count(size)
    remaining = iter(images)
    for shard in range(shards):
        count = size.images * (shard + 1) // shards - size.images * shard // shards
        with (folder / pattern.replace("?????", f"{shard:05}")).open("wb") as file:
            for image in itertools.islice(remaining, count):
                file.writelines(_framed(*example_parts(image, dataset.class_names)))


def _framed(head: bytes, content: bytes) -> tuple[bytes, ...]:
    """Return the parts of a record that consists of two parts, without copying them."""
    length = struct.pack("<Q", len(head) + len(content))
    crc = _crc32c.extend(_crc32c.value(head), content)
    return length, _masked(_crc32c.value(length)), head, content, _masked(crc)


def label_map_text(class_names: Iterable[str]) -> str:
    """Return the label map: ids count from 1, because 0 is the background."""
    return "\n".join(
        f"item {{\n  id: {number}\n  name: {quoted(name)}\n}}\n"
        for number, name in enumerate(class_names, start=1)
    )


def quoted(text: str) -> str:
    """Return a text as a string of protobuf's text format."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def example_parts(image: ExportedImage, class_names: Sequence[str]) -> tuple[bytes, bytes]:
    """Return a serialized ``tf.train.Example`` in two parts: all but the image, and the image.

    The content of the image is the end of the message, so that it need not be copied.
    """
    width, height = image.size_wh
    features = {
        "image/filename": _texts([image.name.encode()]),
        "image/format": _texts([_FORMATS[image.suffix]]),
        "image/height": _integers([height]),
        "image/key/sha256": _texts([hashlib.sha256(image.content).hexdigest().encode()]),
        "image/source_id": _texts([image.image_id.encode()]),
        "image/width": _integers([width]),
        **_image_labels(image, class_names),
        **_objects(image.boxes, class_names),
    }
    entries = [
        _delimited(1, _key_field(key) + _delimited(2, feature)) for key, feature in features.items()
    ]
    # The image is the value of a list, of a feature, of an entry; each has its length before it.
    head = b""
    for number in (1, _BYTES_LIST, 2):
        head = _tag(number, len(head) + len(image.content)) + head
    head = _key_field("image/encoded") + head
    entries.append(_tag(1, len(head) + len(image.content)) + head)
    head = b"".join(entries)
    return _tag(1, len(head) + len(image.content)) + head, image.content


@functools.cache
def _key_field(key: str) -> bytes:
    return _delimited(1, key.encode())


def _objects(boxes: Sequence[ExportedBox], class_names: Sequence[str]) -> Mapping[str, bytes]:
    edges = {
        f"bbox/{name}": _floats([box.xyxy[at] for box in boxes])
        for at, name in enumerate(("xmin", "ymin", "xmax", "ymax"))
    }
    flags = {
        name: _integers([int(getattr(box, name) == 1) for box in boxes])
        for name in ("difficult", "truncated", "occluded", "group_of", "depiction")
    }
    features = {
        **edges,
        **flags,
        "class/text": _texts([class_names[box.class_id].encode() for box in boxes]),
        "class/label": _integers([box.class_id + 1 for box in boxes]),
        "is_crowd": flags["group_of"],
        "weight": _floats([float(box.is_label) for box in boxes]),
    }
    return {f"image/object/{name}": feature for name, feature in features.items()}


def _image_labels(image: ExportedImage, class_names: Sequence[str]) -> Mapping[str, bytes]:
    """Return the classes that are verified to be in the image, and those that are not in it."""
    class_ids = (*image.present, *image.absent)
    confidences = [1.0] * len(image.present) + [0.0] * len(image.absent)
    return {
        "image/class/text": _texts([class_names[class_id].encode() for class_id in class_ids]),
        "image/class/label": _integers([class_id + 1 for class_id in class_ids]),
        "image/class/confidence": _floats(confidences),
    }


def _texts(values: Iterable[bytes]) -> bytes:
    """Return a ``Feature`` with a list of bytes."""
    return _delimited(_BYTES_LIST, b"".join(_delimited(1, value) for value in values))


def _floats(values: Sequence[float]) -> bytes:
    """Return a ``Feature`` with a list of float32 values."""
    return _delimited(_FLOAT_LIST, _delimited(1, struct.pack(f"<{len(values)}f", *values)))


def _integers(values: Iterable[int]) -> bytes:
    """Return a ``Feature`` with a list of integers that are not negative."""
    return _delimited(_INT64_LIST, _delimited(1, b"".join(map(_varint, values))))


def _delimited(number: int, content: bytes) -> bytes:
    """Return a field that has its length before its content."""
    return _tag(number, len(content)) + content


def _tag(number: int, length: int) -> bytes:
    """Return what precedes the content of a field: its number and its length."""
    return _BYTES[number << 3 | _DELIMITED] + _varint(length)


def _varint(value: int) -> bytes:
    """Return a number that is not negative, in groups of 7 bits, the lowest first."""
    if value < _ONE_BYTE:
        return _BYTES[value]
    groups = bytearray()
    while value >= _ONE_BYTE:
        groups.append(value & _ONE_BYTE - 1 | _ONE_BYTE)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _masked(crc: int) -> bytes:
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & _UINT32)
