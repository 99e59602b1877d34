"""Fill the templates of pages, which are self-contained and work without scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.escaping import web_url
from oiyolo.core.results import data_url, pluralize
from oiyolo.pages.inline import hash_source, join_modules, policy, read_asset, trusted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jinja2

_MODULES: Final = ("tables", "gallery")
_STYLE: Final = "page.css"
MISSING: Final = "\N{EN DASH}"
"""Stands in a table for a figure that is not known."""


def render(
    package: str,
    template: str,
    *,
    scripts: Sequence[str] = (),
    local_images: bool = False,
    inline_styles: bool = False,
    connects: bool = False,
    **values: Any,  # noqa: ANN401  (whatever the template needs)
) -> str:
    """Return a page whose template extends ``base.html.j2``.

    Args:
        package: The package whose folder has the template.
        template: Name of the template.
        scripts: Further scripts of the page, which run in this order at its end.
        local_images: Whether the page shows images in its folder; otherwise only those that it
            contains.
        inline_styles: Whether scripts set styles that are not known beforehand, as a library of
            charts does.
        connects: Whether scripts send requests to the server of the page.
        **values: Values for the template.
    """
    own_filters = {
        "data_url": data_url,
        "number": format_number,
        "percent": format_percent,
        "plural": pluralize,
        "web_url": web_url,
    }
    environment = make_environment(package, "oiyolo.pages.assets")
    environment.filters |= own_filters
    style, all_scripts = read_asset("oiyolo.pages", _STYLE), [page_script(), *scripts]
    # A policy with a hash ignores 'unsafe-inline'.
    styles = "'unsafe-inline'" if inline_styles else hash_source(style)
    hashes = map(hash_source, all_scripts)
    images = "img-src data: 'self' file:; " if local_images else "img-src data:; "
    connections = "connect-src 'self'; " if connects else ""
    return environment.get_template(template).render(
        policy=policy(scripts=hashes, styles=[styles], more=images + connections),
        style=trusted(style),
        scripts=[trusted(text) for text in all_scripts],
        **values,
    )


def make_environment(*packages: str) -> jinja2.Environment:
    """Return an environment that escapes, and fails for values that are not given.

    Args:
        packages: The packages in whose folders templates are looked for; a folder without Python
            files may follow the last dot.
    """
    import jinja2  # noqa: PLC0415  (takes long to import)

    loaders = [jinja2.PackageLoader(*name.rsplit(".", 1)) for name in packages]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_script() -> str:
    """Return the script that every page has: tables that sort, and galleries."""
    return join_modules("oiyolo.pages", _MODULES)


def format_number(value: float | None) -> str:
    """Return a whole number with separators; a dash if it is not known."""
    return MISSING if value is None else f"{value:,.0f}"


def format_percent(value: float | None) -> str:
    """Return a fraction as a percentage; a dash if it is not known."""
    return MISSING if value is None else f"{value:.1%}"
