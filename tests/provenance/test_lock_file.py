"""dataset.lock: what is written can be read; anything else is named."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.project.config import as_dict
from oiyolo.project.keys import KEYS, DatasetOptions, SplitOptions
from oiyolo.provenance.lock_file import (
    DECISIVE,
    FORMAT,
    DatasetLock,
    LockedImage,
    LockedTable,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MD5, SHA256 = "a" * 32, "b" * 64
DEFAULTS = {key.name: key.default for key in KEYS}


def a_lock(images: int = 3) -> DatasetLock:
    options = {**as_dict(DatasetOptions()), **as_dict(SplitOptions())}
    options |= {"release": "v7", "skip_bad_rows": False, "size": [416, 416], "fit": "stretch"}
    return DatasetLock(
        version="0.1.0",
        method=2,
        options={name: options[name] for name in DECISIVE},
        labels={"Boat": ["/m/019jd"]},
        tables=[LockedTable("v7/boxes.csv", MD5, "")],
        withdrawn=["f" * 16],
        files={"boxes.csv": SHA256},
        images=[
            LockedImage(f"{n:016x}", "train", "train", "mirror", 10, MD5, 90, SHA256, SHA256)
            for n in range(images)
        ],
    )


def write(path: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    content = json.loads(a_lock().render())
    change(content)
    content.pop("sha256")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))
    return path


def test_a_written_lock_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "dataset.lock"
    for lock in (a_lock(), a_lock(images=0)):
        path.write_text(lock.render())
        assert read(path) == lock


def test_one_changed_image_changes_one_line_and_the_checksum() -> None:
    before, after = a_lock().render().splitlines(), a_lock()
    row = after.images[1]
    changed = [after.images[0], LockedImage(**{**vars(row), "split": "test"}), after.images[2]]
    lines = DatasetLock(**{**vars(after), "images": changed}).render().splitlines()
    assert sum(a != b for a, b in zip(before, lines, strict=True)) == 2


def test_a_newer_lock_names_both_versions(tmp_path: Path) -> None:
    def newer(content: dict[str, Any]) -> None:
        content.update(format=FORMAT + 1, oiyolo="9.9.9", images={"other": "form"})

    with pytest.raises(InputFormError) as caught:
        read(write(tmp_path / "dataset.lock", newer))
    assert "9.9.9" in caught.value.found
    assert str(FORMAT) in caught.value.expected


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda c: c["images"][1].__setitem__(0, "../../../../x"), "images[1].ImageID"),
        (lambda c: c["images"][1].__setitem__(1, "../x"), "images[1].subset"),
        (lambda c: c["images"][1].__setitem__(2, "valid\n"), "images[1].split"),
        (lambda c: c["images"][2].__setitem__(4, -1), "images[2].bytes"),
        (lambda c: c["images"][2].__setitem__(4, True), "images[2].bytes"),
        (lambda c: c["images"][2].__setitem__(5, MD5.upper()), "images[2].md5"),
        (lambda c: c["images"][2].__setitem__(6, 360), "images[2].rotation"),
        (lambda c: c["images"][0].__setitem__(7, ""), "images[0].image_sha256"),
        (lambda c: c["images"][0].pop(), "images[0]"),
        (lambda c: c["images"].reverse(), "images[1]"),
        (lambda c: c["images"].append(c["images"][-1]), "images[3]"),
        (lambda c: c["withdrawn"].append("x"), "withdrawn[1]"),
        (lambda c: c["withdrawn"].append(c["images"][0][0]), "withdrawn[1]"),
        (lambda c: c["columns"].reverse(), "columns"),
        (lambda c: c["options"].update(executable="/bin/sh"), "options.executable"),
        (lambda c: c["options"].update(size="huge"), "options"),
        (lambda c: c["options"].update(sources=["/etc"]), "options.sources"),
        (lambda c: c["options"].pop("seed"), "options.seed"),
        (lambda c: c["labels"].update(Boat=[1]), "labels.Boat"),
        (lambda c: c["tables"].append(["x", "y"]), "tables[1]"),
        (lambda c: c["files"].update({"boxes.csv": "x"}), "files.boxes.csv"),
        (lambda c: c.pop("images"), "images"),
        (lambda c: c.update(method=1.5), "method"),
    ],
)
def test_an_invalid_value_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], key: str
) -> None:
    with pytest.raises(InputFormError) as caught:
        read(write(tmp_path / "dataset.lock", change))
    assert caught.value.exit_code == 3
    assert caught.value.found.startswith(key)


@pytest.mark.parametrize(
    ("value", "found"), [("43", "sha256"), ("NaN", "NaN"), (r'"\ud83d"', "surrogate")]
)
def test_an_edited_value_is_noticed(tmp_path: Path, value: str, found: str) -> None:
    path = tmp_path / "dataset.lock"
    path.write_text(a_lock().render().replace('"seed": 42', f'"seed": {value}'))
    with pytest.raises(InputFormError) as caught:
        read(path)
    assert found in caught.value.found


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "\x00", "NaN"])
def test_damage_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset.lock"
    path.write_text(text)
    with pytest.raises(InputFormError):
        read(path)


def test_a_cut_off_lock_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "dataset.lock"
    path.write_text("\n".join(a_lock().render().splitlines()[:12]))
    with pytest.raises(InputFormError) as caught:
        read(path)
    assert "line 12" in caught.value.found


def test_a_missing_lock_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read(tmp_path / "dataset.lock")
