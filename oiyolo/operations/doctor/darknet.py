"""The darknet that ``train`` would use, found without building or verifying one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oiyolo.core.errors import DarknetError
from oiyolo.operations.doctor.facts import DarknetStatus
from oiyolo.stages import build as build_stage

if TYPE_CHECKING:
    from oiyolo.project.project import Project


def darknet_status(project: Project) -> DarknetStatus:
    """Return the darknet that ``train`` would use, or what it could be built from."""
    try:
        built, rebuild_reason = build_stage.inspect(project)
        source = build_stage.source_folder(project)
    except DarknetError as error:
        return DarknetStatus(problem=str(error))
    options = project.config.darknet
    source_text = str(source) if source is not None else options.source_url or ""
    if built is None:
        return DarknetStatus(source=source_text, is_local=source is not None)
    return DarknetStatus(
        darknet=built.darknet,
        revision=built.revision,
        verified=built.verified,
        source=source_text,
        is_local=source is not None,
        rebuild_reason=rebuild_reason or "",
    )
