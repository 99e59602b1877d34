"""doctor: what this machine has, whether it fits together, and what to do about what is missing.

It only reads; and it waits for nothing longer than some seconds, whatever hangs.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.errors import OiyoloError
from oiyolo.core.results import Result, columns
from oiyolo.darknet.build import toolchain
from oiyolo.networks import builders
from oiyolo.operations.doctor import checks
from oiyolo.operations.doctor import collect as collect
from oiyolo.operations.doctor.darknet import look
from oiyolo.operations.doctor.facts import Facts
from oiyolo.operations.doctor.parallel import Silent, gather
from oiyolo.operations.doctor.reachability import reached
from oiyolo.project import config as options_of
from oiyolo.project.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oiyolo.operations.doctor.facts import Finding, Seen
    from oiyolo.project.project import ProjectLike

_LOCAL_S: Final = 30.0
"""Programs answer within a second or two; a GPU that sleeps, or a busy machine, takes longer."""
_WIDTH: Final = 100


@dataclass(frozen=True)
class Examination(Result):
    """What the doctor found.

    Attributes:
        findings: The rows of the table.
        facts: What they were judged by.
        exit_code: 0 when a training could start, else that of the first hindrance.
    """

    findings: Sequence[Finding]
    facts: Facts
    exit_code: int

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        facts = self.facts
        seen, tools = facts.seen, facts.toolchain
        darknet = seen.darknet.as_dict() if seen and seen.darknet else None
        return {
            "can_train": self.exit_code == 0,
            "exit_code": self.exit_code,
            "verdict": self.verdict,
            "findings": [finding.as_dict() for finding in self.findings],
            "python": facts.python,
            "machine": facts.machine,
            "packages": None if facts.packages is None else [asdict(p) for p in facts.packages],
            "darknet": darknet
            and {**darknet, "revision": seen and seen.revision, "proved": seen and seen.proved},
            "toolchain": tools and tools.as_dict(),
            "driver": facts.driver and asdict(facts.driver),
            "disks": [{**asdict(disk), "path": str(disk.path)} for disk in facts.disks],
            "reached": None if facts.reached is None else [asdict(r) for r in facts.reached],
        }

    @property
    def verdict(self) -> str:
        """Whether a training could start, in a sentence."""
        return checks.verdict(self.facts, self.findings)

    def __str__(self) -> str:
        return "\n".join([_table(self.findings), "", self.verdict])


def _table(findings: Sequence[Finding]) -> str:
    """Lay the findings out, what to do about each below it."""
    heads = [("", ""), *((finding.topic, finding.state) for finding in findings)]
    margins = columns(heads, right=False).splitlines()
    margin = max(map(len, margins)) + 2
    lines = []
    for head, finding in zip(margins[1:], findings, strict=True):
        told = textwrap.wrap(finding.found, _WIDTH - margin, break_on_hyphens=False) or [""]
        if finding.remedy:
            told += textwrap.wrap(
                finding.remedy + ".",
                _WIDTH - margin,
                initial_indent="-> ",
                subsequent_indent="   ",
                break_on_hyphens=False,
                break_long_words=False,
            )
        lines.append(f"{head.ljust(margin)}{told[0]}".rstrip())
        lines += [" " * margin + line for line in told[1:]]
    return "\n".join(lines)


def doctor(project: ProjectLike = ".", *, offline: bool = False, **options: object) -> Examination:
    """Tell what this machine has, whether it fits together, and what to do about the rest.

    Changes nothing, and works outside a project too.

    Args:
        project: An open project or its folder.
        offline: Do not ask whether the places are reached that things come from.
        **options: Any key.

    Raises:
        UsageError: An option is wrong. (What is wrong in the file is a finding.)
    """
    opened, told, problem = _open(project, options)
    tasks: dict[str, Callable[[], Any]] = {
        "packages": collect.packages,
        "tools": toolchain.find,
        "driver": collect.driver,
        "darknet": lambda: look(opened),
        "disks": lambda: collect.disks(opened),
    }
    answers = gather(tasks, deadline_s=_LOCAL_S)
    trouble = [(name, str(said)) for name, said in answers.items() if isinstance(said, Silent)]
    known = {name: said for name, said in answers.items() if not isinstance(said, Silent)}
    seen: Seen | None = known.get("darknet")
    to_fetch = seen.source if seen and seen.darknet is None and not seen.is_here else ""
    facts = Facts(
        python=collect.python(),
        machine=collect.machine(),
        project=told,
        project_problem=problem,
        packages=known.get("packages"),
        toolchain=known.get("tools"),
        driver=known.get("driver"),
        seen=seen,
        disks=known.get("disks", ()),
        reached=None if offline else reached(opened, to_fetch),
        trouble=trouble,
    )
    findings = checks.judge(facts)
    return Examination(findings, facts, checks.exit_code(findings))


def _open(
    project: ProjectLike, options: dict[str, object]
) -> tuple[Project, str, tuple[str, int] | None]:
    """Give the project, or one with the default options where there is none that can be read."""
    if isinstance(project, Project):
        return project, str(project.folder), None
    folder = Path(project).absolute()
    path = folder / options_of.FILE_NAME
    if not path.is_file():
        config = options_of.load(path, options)
        return Project(folder, config), f"none in {folder}; looked at with the defaults", None
    try:
        config = options_of.load(path, options)
        builders.network_named(config.train.network)
        return Project(folder, config), str(folder), None
    except OiyoloError as error:
        # If it is an option of the command line that is wrong, this says so.
        config = options_of.load(folder / "without a file" / path.name, options)
        return Project(folder, config), str(folder), (str(error), error.exit_code)
