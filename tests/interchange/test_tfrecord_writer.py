"""TFRecord files: the framing, the messages, and what TensorFlow itself reads."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import struct
import subprocess
import venv
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from oiyolo.interchange import tfrecord_writer
from oiyolo.interchange.exported import SplitSize
from tests.support.exported_images import CLASSES, dataset_of, exported_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedImage

IMAGES = exported_images()
INSTALL_S = 240
READ = """
import glob, json, sys
import tensorflow as tf
rows = {}
for path in sorted(glob.glob(sys.argv[1] + "/*.tfrecord")):
    for record in tf.data.TFRecordDataset(path):
        example = tf.train.Example.FromString(record.numpy())
        features = example.features.feature
        row = {}
        for key, feature in features.items():
            kind = feature.WhichOneof("kind")
            values = list(getattr(feature, kind).value)
            row[key] = [v.decode("latin-1") for v in values] if kind == "bytes_list" else values
        image = tf.io.decode_image(row["image/encoded"][0].encode("latin-1"))
        row["shape"] = image.shape.as_list()
        rows[row["image/source_id"][0]] = row
json.dump(rows, sys.stdout)
"""


def records(path: Path) -> list[bytes]:
    """Return the records of a file, after checking its checksums."""
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        record = content[at + 12 : at + 12 + length]
        for data, crc_at in ((content[at : at + 8], at + 8), (record, at + 12 + length)):
            (masked,) = struct.unpack_from("<I", content, crc_at)
            rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
            crc: Any = google_crc32c
            assert (rotated >> 17 | rotated << 15) & 0xFFFFFFFF == crc.value(data)
        found.append(record)
        at += length + 16
    return found


def test_each_image_is_in_one_record_and_shards_have_equal_parts(tmp_path: Path) -> None:
    images = [dataclasses.replace(IMAGES[0], image_id=f"{n:016x}") for n in range(7)]
    dataset = dataclasses.replace(
        dataset_of(images), splits={"train": SplitSize(len(images), 600_000_000)}
    )
    tfrecord_writer.write(iter(images), tmp_path, dataset)
    paths = sorted(tmp_path.glob("*.tfrecord"))
    assert [path.name for path in paths] == [f"train-{n:05}-of-00003.tfrecord" for n in range(3)]
    found = [records(path) for path in paths]
    assert [len(own) for own in found] == [2, 2, 3]
    for record, image in zip(itertools.chain(*found), images, strict=True):
        assert image.content in record
        assert image.image_id.encode() in record
    pattern = tfrecord_writer.file_pattern("train", dataset.splits["train"])
    assert sorted(tmp_path.glob(pattern)) == paths


@pytest.fixture(scope="module")
def example_type() -> Any:
    """Return the class of ``tf.train.Example``, made from its definition by protobuf itself.

    A map is a repeated message of keys and values (tensorflow/core/example/feature.proto).
    """
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for name, parts in {
        "Bytes": [("value", 1, field.TYPE_BYTES, "", True)],
        "Floats": [("value", 1, field.TYPE_FLOAT, "", True)],
        "Integers": [("value", 1, field.TYPE_INT64, "", True)],
        "Feature": [
            ("bytes_list", 1, field.TYPE_MESSAGE, "Bytes", False),
            ("float_list", 2, field.TYPE_MESSAGE, "Floats", False),
            ("int64_list", 3, field.TYPE_MESSAGE, "Integers", False),
        ],
        "Entry": [
            ("key", 1, field.TYPE_STRING, "", False),
            ("value", 2, field.TYPE_MESSAGE, "Feature", False),
        ],
        "Features": [("feature", 1, field.TYPE_MESSAGE, "Entry", True)],
        "Example": [("features", 1, field.TYPE_MESSAGE, "Features", False)],
    }.items():
        message = file.message_type.add(name=name)
        for part, number, kind, type_name, is_list in parts:
            message.field.add(
                name=part,
                number=number,
                type=kind,
                type_name=f".{type_name}" if type_name else None,
                label=field.LABEL_REPEATED if is_list else field.LABEL_OPTIONAL,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.image_id[-1])
def test_protobuf_parses_an_example(image: ExportedImage, example_type: Any) -> None:
    example = example_type.FromString(b"".join(tfrecord_writer.example_parts(image, CLASSES)))
    lists = {
        entry.key: next(list(kind.value) for _, kind in entry.value.ListFields())
        for entry in example.features.feature
    }
    assert lists["image/encoded"] == [image.content]
    assert (lists["image/width"], lists["image/height"]) == tuple([n] for n in image.size_wh)
    assert lists["image/object/class/label"] == [box.class_id + 1 for box in image.boxes]
    right = [box.xyxy[2] for box in image.boxes]
    assert lists["image/object/bbox/xmax"] == pytest.approx(right, abs=1e-6)
    assert lists["image/object/weight"] == [float(box.is_label) for box in image.boxes]


def test_a_label_map_counts_from_1_and_escapes_names() -> None:
    assert tfrecord_writer.label_map_text(CLASSES) == (
        'item {\n  id: 1\n  name: "Boat"\n}\n\nitem {\n  id: 2\n  name: "Cat & \\"dog\\""\n}\n'
    )


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield a Python that has TensorFlow: ``OIYOLO_TEST_TENSORFLOW``, or a new environment."""
    if python := os.environ.get("OIYOLO_TEST_TENSORFLOW"):
        yield python
        return
    folder = tmp_path_factory.mktemp("tensorflow")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "tensorflow-cpu>=2.16"]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=INSTALL_S)
        yield python
    except subprocess.TimeoutExpired:
        pytest.skip(f"TensorFlow was not installed within {INSTALL_S} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"TensorFlow cannot be installed: {error.stderr[-300:]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # more than a gigabyte


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tensorflow_reads_the_records(tensorflow: str, tmp_path: Path) -> None:
    tfrecord_writer.write(iter(IMAGES), tmp_path, dataset_of(IMAGES))
    done = subprocess.run(
        [tensorflow, "-c", READ, tmp_path],
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    rows = json.loads(done.stdout)
    assert set(rows) == {image.image_id for image in IMAGES}
    for image in IMAGES:
        row = rows[image.image_id]
        width, height = image.size_wh
        assert row["shape"] == [height, width, 3]
        assert (row["image/height"], row["image/width"]) == ([height], [width])
        assert row["image/encoded"][0].encode("latin-1") == image.content
        assert row["image/key/sha256"] == [hashlib.sha256(image.content).hexdigest()]
        assert (row["image/format"], row["image/filename"]) == (["png"], [image.name])
        edges = [row[f"image/object/bbox/{name}"] for name in ("xmin", "ymin", "xmax", "ymax")]
        expected = np.array([box.xyxy for box in image.boxes]).reshape(-1, 4)
        np.testing.assert_allclose(np.array(edges).T.reshape(-1, 4), expected, atol=1e-6)
        assert row["image/object/class/text"] == [CLASSES[box.class_id] for box in image.boxes]
        assert row["image/object/class/label"] == [box.class_id + 1 for box in image.boxes]
        assert row["image/object/weight"] == [float(box.is_label) for box in image.boxes]
        for name in ("difficult", "group_of", "occluded", "truncated"):
            flags = [int(getattr(box, name) == 1) for box in image.boxes]
            assert row[f"image/object/{name}"] == flags
        assert row["image/class/label"] == [1, 2]
        assert row["image/class/confidence"] == [1.0, 0.0]
