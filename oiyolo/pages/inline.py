"""Scripts and styles inside a page, and the content security policy that admits no others."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_IMPORT: Final = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=function|async|class|const)", re.MULTILINE)


def read_asset(package: str, name: str) -> str:
    """Return a text file in the folder ``assets`` of a package."""
    return resources.files(package).joinpath("assets", name).read_text(encoding="utf-8")


def join_modules(package: str, names: Sequence[str]) -> str:
    """Return JavaScript modules in ``assets`` as one script.

    Args:
        package: The package.
        names: The modules without suffix; each imports from those before it only.
    """
    texts = (read_asset(package, f"{name}.mjs") for name in names)
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in texts)


def trusted(text: str) -> Markup:
    """Return a script, style or page of our own for a template, which does not escape it."""
    return Markup(text)  # noqa: S704  (never text from outside)


def json_data(value: object) -> Markup:
    """Return a value as JSON that cannot end the ``script`` element that contains it."""
    return trusted(json.dumps(value).replace("<", "\\u003c"))


def hash_source(text: str) -> str:
    """Return the source expression that admits an inline script or style.

    Defined in https://www.w3.org/TR/CSP3/#grammardef-hash-source, with its quotation marks.
    """
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def policy(*, scripts: Iterable[str] = (), styles: Iterable[str] = (), more: str = "") -> Markup:
    """Return a content security policy: no request, no form, and no script but the given ones.

    Args:
        scripts: Source expressions of scripts, such as those of ``hash_source``.
        styles: The same for styles.
        more: Further directives, each with a semicolon at its end.
    """
    script_sources, style_sources = (" ".join(s) or "'none'" for s in (scripts, styles))
    return trusted(
        f"default-src 'none'; script-src {script_sources}; style-src {style_sources}; "
        f"{more}base-uri 'none'; form-action 'none'"
    )
