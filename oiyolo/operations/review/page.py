"""The page of suspected label errors, for a look and, with a server, for decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo import __version__
from oiyolo.label_errors.candidates import KIND_WORDS
from oiyolo.label_errors.decisions import ADD, DROP, DROP_IMAGE, KEEP, REPLACE
from oiyolo.label_errors.summary import describe
from oiyolo.pages import template
from oiyolo.pages.gallery import Item, Overlay, drawn_size_wh, filters_of, kinds_of
from oiyolo.pages.inline import json_data, read_asset
from oiyolo.stages import prepare as prepare_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.label_errors.summary import Searched
    from oiyolo.operations.review.listing import Shape
    from oiyolo.project.project import Project

_TEMPLATE: Final = "review.html.j2"
_PACKAGE: Final = "oiyolo.operations.review"


def choices(row: ReviewRow) -> tuple[str, ...]:
    """Return the decisions that are possible about a row."""
    if row.kind == "missing":
        return (KEEP, ADD, DROP_IMAGE)
    return (KEEP, DROP, *((REPLACE,) if row.new_xyxy is not None else ()), DROP_IMAGE)


def pictures(
    project: Project, shown: Sequence[tuple[ReviewRow, Shape]], *, token: str = ""
) -> list[Item]:
    """Return a picture of each suspected error.

    Args:
        project: The project.
        shown: The rows, and where the errors are.
        token: What a server expects with every request; empty for a page in a file.
    """
    with project.ledger(read_only=True) as ledger:
        source_wh = prepare_stage.source_sizes_wh(ledger)
    options = prepare_stage.prepared_options(project)
    is_stretched, size_wh = options["fit"] == "stretch", tuple(options["size"])
    return [
        _item(row, shape, source_wh[row.image_id] if is_stretched else size_wh, token)
        for row, shape in shown
    ]


def render(
    searched: Sequence[Searched],
    items: Sequence[Item],
    rows: Sequence[ReviewRow] = (),
    *,
    token: str = "",
) -> str:
    """Return the page.

    Args:
        searched: Which images were searched, and who judged them.
        items: A picture of each suspected error.
        rows: For a server: the rows that they show.
        token: What a server expects with every request; empty for a page that only shows.
    """
    return template.render(
        _PACKAGE,
        _TEMPLATE,
        local_images=True,
        connects=bool(token),
        scripts=[read_asset(_PACKAGE, "review.js")] if token else [],
        saving=json_data({"token": token, "rows": [[choices(row), row.decision] for row in rows]})
        if token
        else "",
        searched="; ".join(describe(searched)),
        items=items,
        filters=filters_of(items),
        kinds=kinds_of(items),
        version=__version__,
    )


def _item(row: ReviewRow, shape: Shape, shown_wh: tuple[int, int], token: str) -> Item:
    """Return the picture of a suspected error."""
    overlays = [Overlay("label", name, box) for name, box in shape.others]
    if shape.old is not None:
        overlays.append(Overlay("old", row.class_name, shape.old))
    if shape.new is not None:
        overlays.append(Overlay("new", row.new_class or row.class_name, shape.new))
    words = KIND_WORDS.get(row.kind, row.kind)
    return Item(
        row.image_id,
        f"obj/{row.image_id}.jpg?token={token}" if token else f"../dataset/obj/{row.image_id}.jpg",
        drawn_size_wh(shown_wh),
        f"{words} ({row.score:.2f}): {row.reason}",
        overlays,
        {
            "kind": [words],
            "class": [row.class_name],
            "split": [shape.split],
            "decision": [row.decision or "none"],
        },
    )
