"""Records of the project: damage is an error that names the file and a remedy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

from oiyolo.core import records
from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from pathlib import Path


class Part(TypedDict, total=False):
    n: int
    x: float | None


class Form(TypedDict):
    name: str
    parts: list[Part]
    sizes: dict[str, list[int]]
    anything: Any
    is_set: bool


VALID: dict[str, Any] = {
    "name": "a",
    "parts": [{"n": 1, "x": None}, {"x": 1}, {"other": []}],
    "sizes": {"b": [1, 2]},
    "anything": [{}],
    "is_set": True,
    "unknown": 1,
}


def test_a_valid_record_has_its_form() -> None:
    assert records.mismatch(VALID, Form) == ""


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": 1}, "name"),
        ({"name": None}, "name"),
        ({"parts": {}}, "parts"),
        ({"parts": [{"n": 1}, {"n": "1"}]}, "parts.1.n"),
        ({"parts": [{"n": True}]}, "parts.0.n"),
        ({"parts": [{"n": 10**30}]}, "parts.0.n"),
        ({"parts": [{"x": []}]}, "parts.0.x"),
        ({"parts": [{"x": float("nan")}]}, "parts.0.x"),
        ({"sizes": {"b": 1}}, "sizes.b"),
        ({"is_set": 1}, "is_set"),
    ],
)
def test_a_mismatch_is_named(changes: dict[str, Any], named: str) -> None:
    assert named in records.mismatch({**VALID, **changes}, Form)
    without = {key: value for key, value in VALID.items() if key not in changes}
    assert min(changes) in records.mismatch(without, Form)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"12", b"null", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b"{}"),
        *(json.dumps({**VALID, "anything": x}).encode() for x in (float("inf"), "\ud800")),
    ],
    ids=range(11),
)
def test_damage_is_an_error_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    assert records.find(path, Form, remedy="Restore it") is None
    path.write_bytes(content)
    with pytest.raises(InputFormError) as caught:
        records.find(path, Form, remedy="Restore it")
    assert caught.value.where == str(path)
    assert caught.value.remedy == "Restore it"


@dataclass(frozen=True)
class Total:
    images: int
    seconds: float = 0.0


@pytest.mark.parametrize(
    ("content", "loaded"),
    [
        ('{"images": 1}', Total(1)),
        ('{"images": 1, "seconds": 2}', Total(1, 2)),
        ('{"seconds": 2}', None),
        ('{"images": 1, "other": 2}', None),
        ('{"images": "1"}', None),
        ('{"images": 1, "seconds": 1e999}', None),
        ("[]", None),
        ("", None),
    ],
)
def test_a_dataclass_is_loaded_only_if_it_is_intact(
    tmp_path: Path, content: str, loaded: Total | None
) -> None:
    path = tmp_path / "total.json"
    assert records.load(path, Total) is None
    path.write_text(content, encoding="utf-8")
    assert records.load(path, Total) == loaded
    intact = records.find_intact(path, dict[str, float])
    assert (intact is None) == (content in {"[]", "", '{"images": "1"}'} or "1e999" in content)


def test_lines_that_are_missing_or_not_utf8_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "names"
    with pytest.raises(InputFormError):
        records.read_lines(path, remedy="Restore it")
    path.write_bytes(b"B\xe4r\n")
    with pytest.raises(InputFormError):
        records.read_lines(path, remedy="Restore it")
    path.write_text("Boat\nDuck\n", encoding="utf-8")
    assert records.read_lines(path, remedy="Restore it") == ["Boat", "Duck"]
