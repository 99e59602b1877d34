"""Errors: the message, the exit code and the parts for ``--json``."""

from __future__ import annotations

import pickle

import pytest

from oiyolo.core import errors
from oiyolo.core.errors import OiyoloError


def with_subclasses(kind: type[OiyoloError] = OiyoloError) -> list[type[OiyoloError]]:
    return [kind, *(c for direct in kind.__subclasses__() for c in with_subclasses(direct))]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("OiyoloError", 1),
        ("UsageError", 2),
        ("InputFormError", 3),
        ("UnavailableError", 4),
        ("DarknetError", 5),
        ("LockedError", 6),
    ],
)
def test_each_error_has_its_documented_exit_code(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code
    assert getattr(errors, name).__name__ in (errors.__doc__ or "")


def test_subclasses_elsewhere_have_the_exit_code_of_their_base() -> None:
    import oiyolo.evaluation.tables  # noqa: PLC0415
    import oiyolo.networks.cfg  # noqa: F401, PLC0415

    assert {kind.exit_code for kind in with_subclasses()} == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "it broke."),
        ({"where": "a.csv:3"}, "a.csv:3: it broke."),
        ({"expected": "2 fields"}, "it broke: expected 2 fields."),
        ({"found": "1"}, "it broke: found 1."),
        ({"expected": "2", "found": "1"}, "it broke: expected 2, found 1."),
        ({"remedy": "Fix it"}, "it broke. Fix it."),
        ({"remedy": "Is it complete?"}, "it broke. Is it complete?"),
        (
            {"where": "x", "expected": "2", "found": "1", "remedy": "Fix it"},
            "x: it broke: expected 2, found 1. Fix it.",
        ),
    ],
)
def test_the_message_is_one_short_paragraph(parts: dict[str, str], text: str) -> None:
    error = OiyoloError("it broke", **parts)
    assert str(error) == text
    assert error.as_dict() == {"error": "it broke", **parts}


def test_an_error_can_be_pickled() -> None:
    error = errors.InputFormError("it broke", where="here", remedy="Fix it")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(copy, errors.InputFormError)
    assert str(copy) == str(error)
    assert copy.as_dict() == error.as_dict()


@pytest.mark.parametrize(
    "kind",
    [errors.UsageError, errors.InputFormError, errors.UnavailableError, errors.DarknetError],
)
def test_an_error_is_restored_from_what_another_process_printed(kind: type[OiyoloError]) -> None:
    error = kind("it failed", where="a.txt", expected="x", found="y", remedy="Do z")
    restored = errors.error_of({**error.as_dict(), "exit_code": error.exit_code}, error.exit_code)
    assert (type(restored), str(restored)) == (kind, str(error))
