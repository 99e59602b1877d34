"""classes: list the classes of Open Images, their hierarchy, and how many images are selected."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.results import Result, format_table, pluralize
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.classes import (
    ROOT_NAME,
    find_class,
    names_containing,
    nearest_names,
    read_children,
    read_names,
)
from oiyolo.openimages.releases import release
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import open_or_default
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Unpack

    from oiyolo.project.keywords import OpenImagesKeywords
    from oiyolo.project.project import Project, ProjectLike

_INDENT: Final = "  "


@dataclass(frozen=True)
class ClassMatch:
    """The class that a word names, or else similar class names.

    Attributes:
        word: The word.
        mid: MID of the class that it names; empty if it names none.
        containing: Class names that contain the word, if it names none.
        nearest: Other class names with a similar spelling, if it names none.
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
        children: MIDs of the children of each MID, the root first.
        matches: Matches of the requested words; empty for all classes.
        as_tree: Whether to show all descendants of a class instead of its children.
        counts: Images and boxes that the project's selection uses, by MID; empty without a
            selection.
    """

    release: str
    names: Mapping[str, str]
    children: Mapping[str, Sequence[str]]
    matches: Sequence[ClassMatch]
    as_tree: bool
    counts: Mapping[str, tuple[int, int]]

    @cached_property
    def parents(self) -> Mapping[str, Sequence[str]]:
        """MIDs of the parents of each MID."""
        above: dict[str, list[str]] = {}
        for mid, below in self.children.items():
            for child in below:
                above.setdefault(child, []).append(mid)
        return above

    @property
    def mids(self) -> Sequence[str]:
        """The MIDs of the matches, or else all MIDs in the order of their names."""
        if self.matches:
            return list(dict.fromkeys(match.mid for match in self.matches if match.mid))
        return sorted(self.names, key=lambda mid: self.names[mid].casefold())

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        searches = [
            {
                "word": match.word,
                "containing": list(match.containing),
                "nearest": list(match.nearest),
            }
            for match in self.matches
            if not match.mid
        ]
        result: dict[str, object] = {
            "release": self.release,
            "classes": [self._class_dict(mid) for mid in self.mids],
            "searches": searches,
        }
        if self.as_tree:
            result["tree"] = [self._tree_dict(mid, ()) for mid in self._root_mids]
        return result

    def _class_dict(self, mid: str) -> dict[str, object]:
        return {
            **self._identity(mid),
            "parents": [self._name(above) for above in self.parents.get(mid, ())],
            "children": [self._name(below) for below in self.children.get(mid, ())],
        }

    def _identity(self, mid: str) -> dict[str, object]:
        numbers = dict(zip(("images", "boxes"), self.counts.get(mid, ()), strict=False))
        return {"name": self._name(mid), "mid": mid, **numbers}

    def _tree_dict(self, mid: str, above: tuple[str, ...]) -> dict[str, object]:
        path = (*above, mid)
        below = [self._tree_dict(child, path) for child in self._children_by_name(mid, path)]
        return {**self._identity(mid), "children": below}

    @property
    def _root_mids(self) -> Sequence[str]:
        """The MIDs at which the trees begin: those of the matches, or else the root."""
        return self.mids if self.matches else list(self.children)[:1]

    def _children_by_name(self, mid: str, path: Sequence[str]) -> list[str]:
        """Return the children in the order of their names, without those already in the path."""
        children = (child for child in self.children.get(mid, ()) if child not in path)
        return sorted(children, key=self._name)

    def _name(self, mid: str) -> str:
        is_root = mid in self.children and mid not in self.parents
        return self.names.get(mid, ROOT_NAME if is_root else mid)

    def __str__(self) -> str:
        if self.as_tree:
            rows = [row for mid in self._root_mids for row in self._tree_rows(mid, ())]
            parts = [self._table(rows)] if rows else []
        elif self.matches:
            parts = [self._description(mid) for mid in self.mids]
        else:
            parts = [self._table([("", mid) for mid in self.mids])]
        return "\n".join(parts + [_search_text(match) for match in self.matches if not match.mid])

    def _tree_rows(self, mid: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        path = (*above, mid)
        yield _INDENT * len(above), mid
        for child in self._children_by_name(mid, path):
            yield from self._tree_rows(child, path)

    def _table(self, rows: Sequence[tuple[str, str]]) -> str:
        """Return a table of indented names, MIDs and, if available, counts."""
        names = [(indent + self._name(mid), mid) for indent, mid in rows]
        lines = format_table(names, right=False).splitlines()
        return format_table(
            [(line, *self._count_texts(mid)) for line, (_, mid) in zip(lines, rows, strict=True)]
        )

    def _count_texts(self, mid: str) -> tuple[str, str]:
        if mid not in self.counts:
            return "", ""
        images, boxes = self.counts[mid]
        return pluralize(images, "image"), pluralize(boxes, "box")

    def _description(self, mid: str) -> str:
        head = f"{self._name(mid)} ({mid})"
        if mid in self.counts:
            head += f": {', '.join(self._count_texts(mid))}"
        rows = [("", "parents", path) for path in self._paths(mid, ())]
        if below := self._children_by_name(mid, ()):
            rows.append(("", "children", ", ".join(map(self._name, below))))
        return "\n".join([head, format_table(rows, right=False)] if rows else [head])

    def _paths(self, mid: str, below: tuple[str, ...]) -> list[str]:
        """Return every path of names from the root down to a class."""
        path = (mid, *below)
        parents = [above for above in self.parents.get(mid, ()) if above not in path]
        if below and not parents:
            return [" > ".join(self._name(m) for m in path[:-1])]
        return [text for above in parents for text in self._paths(above, path)]


def _search_text(match: ClassMatch) -> str:
    parts = [f"{match.word!r} is not a class"]
    if match.containing:
        parts.append("names that contain it: " + ", ".join(match.containing))
    if match.nearest:
        parts.append("similar names: " + ", ".join(match.nearest))
    return "\n  ".join(parts)


@takes_keys("openimages")
def classes(
    names: str | Sequence[str] | None = None,
    project: ProjectLike = ".",
    *,
    tree: bool = False,
    **options: Unpack[OpenImagesKeywords],
) -> Classes:
    """Return the classes of Open Images, or some of them with their parents and children.

    Works in any folder. In a project's folder, it uses the project's release and, after a
    selection, counts the selected images and boxes.

    Args:
        names: Class names, MIDs, or words to search for; all classes if omitted.
        project: An open project or its folder.
        tree: Whether to show all descendants of each class.
        **options: Keys of ``[openimages]``.

    Raises:
        UsageError: A word names no class and resembles none, or an option is unknown.
        UnavailableError: The site cannot be reached and nothing is cached.
        InputFormError: An official file or the selection is malformed.
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
        matches=[_match_word(word, names_by_mid) for word in words],
        as_tree=tree,
        counts=_counts(opened),
    )


def _match_word(word: str, names: Mapping[str, str]) -> ClassMatch:
    try:
        return ClassMatch(word, find_class(word, names))
    except UsageError:
        within = names_containing(word, names.values())
        near = [name for name in nearest_names(word, names.values()) if name not in within]
        if not (within or near):
            raise
        return ClassMatch(word, "", within, near)


def _counts(project: Project) -> dict[str, tuple[int, int]]:
    selection = select_stage.find(project)
    if selection is None:
        return {}
    boxes = selection.boxes
    used = boxes.loc[boxes["used"], ["LabelName", "ImageID"]]
    by_label = used.groupby(used["LabelName"].astype(str))["ImageID"]
    counted = {str(mid): (int(ids.nunique()), len(ids)) for mid, ids in by_label}
    selected = {mid: (0, 0) for mids in selection.summary["labels"].values() for mid in mids}
    return {**selected, **counted}
