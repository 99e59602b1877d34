"""A Sphinx extension: fills the page ``api`` with the docstrings of the public names."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final

from sphinx.domains.python import PythonDomain
from sphinx.pycode import ModuleAnalyzer

import oiyolo
from docs._extensions.command_reference import enumerated
from oiyolo.project.keys import KEYS_BY_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sphinx.application import Sphinx

_PAGE: Final = "api"
_TITLES: Final = ("Commands", "Projects, detectors, logs and charts", "Results", "Errors")
_KEY_ENTRY: Final = re.compile(r"^    (?P<name>\w+): .*\(``\[\w+\] \w+``\)\.$")


def sections() -> dict[str, list[str]]:
    """Return the public names by the title of their section, in the order of ``oiyolo.__all__``."""
    result: dict[str, list[str]] = {title: [] for title in _TITLES}
    for name in oiyolo.__all__:
        if name != "__version__":
            result[_TITLES[_section_index(getattr(oiyolo, name))]].append(name)
    return result


def _section_index(value: object) -> int:
    if isinstance(value, type):
        return 3 if issubclass(value, Exception) else 2 if issubclass(value, oiyolo.Result) else 1
    returned = str(getattr(value, "__annotations__", {}).get("return", "")).split(" | ")
    types = [getattr(oiyolo, name, object) for name in returned]
    return 0 if any(issubclass(kind, oiyolo.Result) for kind in types) else 1


def directive(name: str) -> str:
    """Return the directive that documents a public name, as reStructuredText."""
    value: Any = getattr(oiyolo, name)
    if not isinstance(value, type):
        return f".. autofunction:: oiyolo.{name}{_signature(value)}\n"
    kind = "exception" if issubclass(value, Exception) else "class"
    options = [":members:", ":exclude-members: __init__"]
    if any(base.__name__ in oiyolo.__all__ for base in value.__bases__):
        options.append(":show-inheritance:")
    return f".. auto{kind}:: oiyolo.{name}\n" + "".join(f"   {option}\n" for option in options)


def _signature(function: Any) -> str:  # noqa: ANN401  (inspect's own type)
    """Return a function's signature; the parameters that are keys are ``**options``.

    The parameters have no types, which are in their entries.
    """
    signature = inspect.signature(function)
    keys = _key_parameters(inspect.getdoc(function) or "")
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in keys
    ]
    if keys:
        parameters.append(inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD))
    return f"{inspect.Signature(parameters)} -> {function.__annotations__['return']}"


def _key_parameters(docstring: str) -> dict[str, str]:
    """Return the parameters in a docstring that are keys, each with its section."""
    names = [m["name"] for line in docstring.splitlines() if (m := _KEY_ENTRY.match(line))]
    return {name: KEYS_BY_NAME[name].section for name in names}


def without_keys(lines: Sequence[str]) -> list[str]:
    """Return a docstring's lines with one entry for all the parameters that are keys."""
    keys = _key_parameters("\n".join(lines))
    if not keys:
        return list(lines)
    named = enumerated([f"``[{section}]``" for section in dict.fromkeys(keys.values())])
    entry = f"    **options: The keys of {named} in ``oiyolo.toml``; see :doc:`configuration`."
    result: list[str] = []
    for line in lines:
        if not _KEY_ENTRY.match(line):
            result.append(line)
        elif entry not in result:
            result.append(entry)
    return result


def _on_source_read(_app: Sphinx, docname: str, source: list[str]) -> None:
    if docname != _PAGE:
        return
    for title, names in sections().items():
        directives = "\n".join(map(directive, names))
        source[0] += f"\n## {title}\n\n```{{eval-rst}}\n.. highlight:: python\n\n{directives}```\n"


def _without_email_addresses(line: str) -> str:
    """Return a line in which mAP@0.5 does not become a link, as an e-mail address would."""
    parts = line.split("``")
    parts[::2] = [part.replace("@", r"\@") for part in parts[::2]]  # the others are literals
    return "``".join(parts)


def _on_docstring(*arguments: Any) -> None:  # noqa: ANN401  (the signature that autodoc calls)
    lines = arguments[-1]
    lines[:] = [_without_email_addresses(line) for line in without_keys(lines)]


def _on_signature(_app: Sphinx, _kind: str, _name: str, value: Any, *_: Any) -> None:  # noqa: ANN401
    """Discard overloads, which autodoc would show in place of the signature in the directive."""
    if inspect.isfunction(value):
        analyzer = ModuleAnalyzer.for_module(value.__module__)
        analyzer.analyze()
        analyzer.overloads.clear()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    for field in getattr(PythonDomain.directives["class"], "doc_field_types", ()):
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("source-read", _on_source_read)
    app.connect("autodoc-process-signature", _on_signature)
    app.connect("autodoc-process-docstring", _on_docstring, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
