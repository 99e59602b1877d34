"""Read the records that the project wrote: JSON files whose damage is an error with a remedy.

A record is the only source of what it says (``find``), unlike a recipe or a cache, which are made
again if they cannot be read (``find_intact``, ``load``). A form is declared with type hints, of
which these are checked: ``str``, ``int``, ``float``, ``bool``, ``None``, ``list``, ``dict``,
unions, ``Any`` and typed dictionaries. A number is finite, and a whole number fits into 64 bits.
"""

from __future__ import annotations

import contextlib
import math
import types
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from oiyolo.core import files
from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_T = TypeVar("_T")
_MAX_NUMBER: Final = 2**63
_NAMES: Final = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
}


def find(path: Path, form: object, *, remedy: str) -> dict[str, Any] | None:
    """Return the content of a record; ``None`` if the file does not exist.

    Args:
        path: The file, which contains a JSON object.
        form: The type hint of the object.
        remedy: How the user can restore the file.

    Raises:
        InputFormError: The file is damaged.
        OSError: The file cannot be read.
    """
    if not path.exists():
        return None
    content = files.read_json(path)
    problem = "not a JSON object" if not isinstance(content, dict) else mismatch(content, form)
    if problem:
        raise damaged_error(path, problem, remedy)
    return content  # type: ignore[no-any-return]  # checked above


def find_intact(path: Path, form: object) -> dict[str, Any] | None:
    """Return the content of a file that is made again if need be; ``None`` if it is damaged.

    Args:
        path: The file, which contains a JSON object and need not exist.
        form: The type hint of the object.

    Raises:
        OSError: The file cannot be read.
    """
    content = files.read_json(path)
    is_intact = isinstance(content, dict) and not mismatch(content, form)
    return content if is_intact else None


def load(path: Path, kind: type[_T]) -> _T | None:
    """Return the dataclass object in a file; ``None`` if it is missing or damaged.

    Args:
        path: The file, which contains the object's fields and is made again if need be.
        kind: The dataclass.

    Raises:
        OSError: The file cannot be read.
    """
    content = files.read_json(path)
    hints = get_type_hints(kind)
    if not isinstance(content, dict) or content.keys() - hints.keys():
        return None
    if any(mismatch(value, hints[name]) for name, value in content.items()):
        return None
    try:
        return kind(**content)
    except TypeError:  # a field is missing
        return None


def damaged_error(path: Path, found: str, remedy: str) -> InputFormError:
    """Return the error for a file of the project that is not as the project wrote it."""
    return InputFormError(
        "the file is damaged",
        where=str(path),
        expected=f"{path.name} as oiyolo wrote it",
        found=found,
        remedy=remedy,
    )


@contextlib.contextmanager
def convert_damage(path: Path, remedy: str) -> Iterator[None]:
    """Turn the errors of code that relies on a file's form into ``damaged_error``."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise damaged_error(path, f"{type(error).__name__}: {error}", remedy) from error


def read_lines(path: Path, *, remedy: str) -> list[str]:
    """Return the lines of a text file of the project.

    Raises:
        InputFormError: The file is missing or not UTF-8.
        OSError: The file cannot be read.
    """
    try:
        return files.read_text(path).splitlines()
    except FileNotFoundError:
        raise damaged_error(path, "no such file", remedy) from None
    except UnicodeDecodeError as error:
        raise damaged_error(path, f"bytes that are not UTF-8 ({error.reason})", remedy) from None


def mismatch(value: object, form: object, name: str = "") -> str:
    """Return where a value does not have the form of a type hint, in words; empty if it does."""
    if form is Any:
        return ""
    origin = get_origin(form)
    if origin in {types.UnionType, Union}:
        problems = [mismatch(value, option, name) for option in get_args(form)]
        return "" if "" in problems else problems[0]
    if is_typeddict(form) or origin in {dict, list}:
        return _container_mismatch(value, form, name)
    if isinstance(form, type) and _is_scalar(value, form):
        return ""
    return f"{_NAMES.get(form, 'another type')} is expected for {name}"  # type: ignore[call-overload]


def _is_scalar(value: object, form: type) -> bool:
    if isinstance(value, bool) or form is bool:
        return isinstance(value, bool) and form is bool
    if isinstance(value, int):
        return form in {int, float} and abs(value) < _MAX_NUMBER
    return isinstance(value, form) and not (isinstance(value, float) and not math.isfinite(value))


def _container_mismatch(value: object, form: object, name: str) -> str:
    is_list = get_origin(form) is list
    if not isinstance(value, list if is_list else dict):
        return f"{'a list' if is_list else 'an object'} is expected for {name or 'the file'}"
    pairs = enumerate(value) if isinstance(value, list) else value.items()
    check = _checker(form)
    found = (check(key, item, f"{name}.{key}" if name else str(key)) for key, item in pairs)
    missing = [key for key in getattr(form, "__required_keys__", ()) if key not in value]
    problems = (f"{key} is missing" for key in missing)
    return next((problem for problem in (*problems, *found) if problem), "")


def _checker(form: object) -> Callable[[Any, object, str], str]:
    """Return a function that checks an item of a list or object: its key, value and name."""
    if is_typeddict(form):
        hints = get_type_hints(form)
        return lambda key, item, name: mismatch(item, hints.get(key, Any), name)
    item_form = (get_args(form) or (Any,))[-1]
    return lambda _, item, name: mismatch(item, item_form, name)
