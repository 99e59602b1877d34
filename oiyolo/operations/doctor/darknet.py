"""The darknet that a training would use, without building or proving one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oiyolo.core.errors import DarknetError
from oiyolo.operations.doctor.facts import Seen
from oiyolo.stages import build as build_stage

if TYPE_CHECKING:
    from oiyolo.project.project import Project


def look(project: Project) -> Seen:
    """Find it, and what it could be built from."""
    try:
        built, outdated = build_stage.look(project)
        source = build_stage.source_folder(project)
    except DarknetError as error:
        return Seen(problem=str(error))
    places = project.config.darknet
    told = str(source) if source is not None else places.source_url or ""
    if built is None:
        return Seen(source=told, is_here=source is not None)
    return Seen(
        darknet=built.darknet,
        revision=built.revision,
        proved=built.proved,
        source=told,
        is_here=source is not None,
        outdated=outdated or "",
    )
