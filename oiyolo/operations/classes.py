"""classes: the classes there are, what is above and below them, and how many were selected."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.results import Result, columns, count
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.classes import (
    ROOT_NAME,
    containing,
    find_class,
    nearest,
    read_children,
    read_names,
)
from oiyolo.openimages.releases import release
from oiyolo.project.project import open_or_default
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.project.project import Project, ProjectLike

_INDENT: Final = "  "


@dataclass(frozen=True)
class Found:
    """What one word stands for.

    Attributes:
        word: The word.
        mid: The class that it names; empty if it names none.
        containing: Names that contain it, if it names none.
        nearest: Other names that are like it, if it names none.
    """

    word: str
    mid: str
    containing: Sequence[str] = ()
    nearest: Sequence[str] = ()


@dataclass(frozen=True)
class Classes(Result):
    """Classes of a release.

    Attributes:
        release: The release.
        names: Display names by MID, of every class with boxes.
        children: MIDs directly below each MID, the root first.
        found: What was asked for; nothing means all classes.
        as_tree: Show all that is below each, not only its children.
        counts: Images and boxes that the project's selection uses, by MID; empty without one.
    """

    release: str
    names: Mapping[str, str]
    children: Mapping[str, Sequence[str]]
    found: Sequence[Found]
    as_tree: bool
    counts: Mapping[str, tuple[int, int]]

    @cached_property
    def parents(self) -> Mapping[str, Sequence[str]]:
        """MIDs directly above each MID."""
        above: dict[str, list[str]] = {}
        for mid, below in self.children.items():
            for child in below:
                above.setdefault(child, []).append(mid)
        return above

    @property
    def shown(self) -> Sequence[str]:
        """The MIDs that were found, or else all, in the order of their names."""
        if self.found:
            return list(dict.fromkeys(one.mid for one in self.found if one.mid))
        return sorted(self.names, key=lambda mid: self.names[mid].casefold())

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        searches = [
            {"word": one.word, "containing": list(one.containing), "nearest": list(one.nearest)}
            for one in self.found
            if not one.mid
        ]
        given: dict[str, object] = {
            "release": self.release,
            "classes": [self._as_dict(mid) for mid in self.shown],
            "searches": searches,
        }
        if self.as_tree:
            given["tree"] = [self._branch(mid, ()) for mid in self._tops()]
        return given

    def _as_dict(self, mid: str) -> dict[str, object]:
        return {
            **self._own(mid),
            "parents": [self._name(above) for above in self.parents.get(mid, ())],
            "children": [self._name(below) for below in self.children.get(mid, ())],
        }

    def _own(self, mid: str) -> dict[str, object]:
        counted = dict(zip(("images", "boxes"), self.counts.get(mid, ()), strict=False))
        return {"name": self._name(mid), "mid": mid, **counted}

    def _branch(self, mid: str, above: tuple[str, ...]) -> dict[str, object]:
        path = (*above, mid)
        below = [self._branch(child, path) for child in self._below(mid, path)]
        return {**self._own(mid), "children": below}

    def _tops(self) -> Sequence[str]:
        """Give where trees begin: what was found, or else the root."""
        return self.shown if self.found else list(self.children)[:1]

    def _below(self, mid: str, path: Sequence[str]) -> list[str]:
        """Give the children in the order of their names, but for those that lead in a circle."""
        children = (child for child in self.children.get(mid, ()) if child not in path)
        return sorted(children, key=self._name)

    def _name(self, mid: str) -> str:
        is_root = mid in self.children and mid not in self.parents
        return self.names.get(mid, ROOT_NAME if is_root else mid)

    def __str__(self) -> str:
        told = []
        if self.as_tree:
            rows = [row for mid in self._tops() for row in self._lines(mid, ())]
            told += [self._table(rows)] if rows else []
        elif self.found:
            told += [self._described(mid) for mid in self.shown]
        else:
            told.append(self._table([("", mid) for mid in self.shown]))
        return "\n".join(told + [_as_search(one) for one in self.found if not one.mid])

    def _lines(self, mid: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        path = (*above, mid)
        yield _INDENT * len(above), mid
        for child in self._below(mid, path):
            yield from self._lines(child, path)

    def _table(self, rows: Sequence[tuple[str, str]]) -> str:
        """Lay out indented names, MIDs, and counts where there are any."""
        texts = [(indent + self._name(mid), mid, *self._counted(mid)) for indent, mid in rows]
        # The MIDs belong to the left as the names do; only numbers belong to the right.
        widths = [max(len(text[place]) for text in texts) for place in range(len(texts[0]))]
        lines = []
        for name, mid, *numbers in texts:
            cells = [name.ljust(widths[0]), mid.ljust(widths[1])]
            cells += [n.rjust(width) for n, width in zip(numbers, widths[2:], strict=True)]
            lines.append(_INDENT.join(cells).rstrip())
        return "\n".join(lines)

    def _counted(self, mid: str) -> tuple[str, str]:
        if mid not in self.counts:
            return "", ""
        images, boxes = self.counts[mid]
        return count(images, "image"), count(boxes, "box")

    def _described(self, mid: str) -> str:
        counted = [", ".join(self._counted(mid))] if mid in self.counts else []
        rows = [("", "parents", path) for path in self._paths(mid, ())]
        if below := self._below(mid, ()):
            rows.append(("", "children", ", ".join(map(self._name, below))))
        head = ": ".join([f"{self._name(mid)} ({mid})", *counted])
        return "\n".join([head, columns(rows, right=False)] if rows else [head])

    def _paths(self, mid: str, below: tuple[str, ...]) -> list[str]:
        """Give every way down from the root to a class, as names."""
        path = (mid, *below)
        parents = [above for above in self.parents.get(mid, ()) if above not in path]
        if below and not parents:
            return [" > ".join(self._name(m) for m in path[:-1])]
        return [told for above in parents for told in self._paths(above, path)]


def _as_search(found: Found) -> str:
    told = [f"{found.word!r} is no class"]
    if found.containing:
        told.append("contained in: " + ", ".join(found.containing))
    if found.nearest:
        told.append("nearest: " + ", ".join(found.nearest))
    return "\n  ".join(told)


def classes(
    names: str | Sequence[str] | None = None,
    project: ProjectLike = ".",
    *,
    tree: bool = False,
    **options: object,
) -> Classes:
    """Tell which classes there are, or where some of them stand.

    Works in any folder; in a project's, the project's release is used, and images and boxes are
    counted once something was selected.

    Args:
        names: Class names, MIDs, or words to look for; all classes, if none is given.
        project: An open project or its folder.
        tree: Show all that is below each class.
        **options: Keys of ``[openimages]``.

    Raises:
        UsageError: A word that is no class and not near to any; an unknown option.
        UnavailableError: The site cannot be reached and nothing is cached.
        InputFormError: An official file, or the selection, is damaged.
    """
    opened = open_or_default(project, options)
    words = [names] if isinstance(names, str) else list(names or ())
    official = release(opened.config.openimages.release)
    base_url = opened.config.openimages.base_url
    with contextlib.closing(Cache(opened.cache_folder, base_url)) as cache:
        names_by_mid = read_names(cache.get(official.classes).path)
        children = read_children(cache.get(official.hierarchy).path)
    return Classes(
        release=opened.config.openimages.release,
        names=names_by_mid,
        children=children,
        found=[_look_for(word, names_by_mid) for word in words],
        as_tree=tree,
        counts=_counts(opened),
    )


def _look_for(word: str, names: Mapping[str, str]) -> Found:
    try:
        return Found(word, find_class(word, names))
    except UsageError:
        within = containing(word, names.values())
        near = [name for name in nearest(word, names.values()) if name not in within]
        if not (within or near):
            raise
        return Found(word, "", within, near)


def _counts(project: Project) -> dict[str, tuple[int, int]]:
    selection = select_stage.load(project)
    if selection is None:
        return {}
    boxes = selection.boxes
    used = boxes.loc[boxes["used"], ["LabelName", "ImageID"]]
    by_label = used.groupby(used["LabelName"].astype(str))["ImageID"]
    counted = {str(mid): (int(ids.nunique()), len(ids)) for mid, ids in by_label}
    selected = {mid: (0, 0) for mids in selection.summary["labels"].values() for mid in mids}
    return {**selected, **counted}
