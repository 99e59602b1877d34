"""Errors: one short paragraph, an exit code, parts for a program."""

from __future__ import annotations

import pickle

import pytest

from oiyolo.core import errors
from oiyolo.core.errors import OiyoloError


def every(kind: type[OiyoloError] = OiyoloError) -> list[type[OiyoloError]]:
    return [kind, *(below for direct in kind.__subclasses__() for below in every(direct))]


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
def test_every_kind_has_the_exit_code_of_the_contract(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code
    assert getattr(errors, name).__name__ in (errors.__doc__ or "")


def test_a_descendant_keeps_the_exit_code_of_its_kind() -> None:
    import oiyolo.evaluation.tables  # noqa: PLC0415
    import oiyolo.networks.cfg  # noqa: F401, PLC0415

    assert {kind.exit_code for kind in every()} == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({}, "it broke."),
        ({"where": "a.csv:3"}, "a.csv:3: it broke."),
        ({"expected": "2 fields"}, "it broke: expected 2 fields."),
        ({"found": "1"}, "it broke: found 1."),
        ({"expected": "2", "found": "1"}, "it broke: expected 2, found 1."),
        ({"remedy": "Mend it"}, "it broke. Mend it."),
        ({"remedy": "Is it whole?"}, "it broke. Is it whole?"),
        (
            {"where": "x", "expected": "2", "found": "1", "remedy": "Mend it"},
            "x: it broke: expected 2, found 1. Mend it.",
        ),
    ],
)
def test_the_text_is_one_short_paragraph(parts: dict[str, str], told: str) -> None:
    error = OiyoloError("it broke", **parts)
    assert str(error) == told
    assert error.as_dict() == {"error": "it broke", **parts}


def test_an_error_survives_a_pool_of_processes() -> None:
    error = errors.InputFormError("it broke", where="here", remedy="Mend it")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(back, errors.InputFormError)
    assert str(back) == str(error)
    assert back.as_dict() == error.as_dict()
