"""doctor: check whether this machine can train, and advise on what is missing or incompatible.

It changes nothing, and it waits only for a limited time if a program or server hangs.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core.errors import OiyoloError
from oiyolo.core.results import TERMINAL_WIDTH, Result, format_table
from oiyolo.darknet.build import toolchain
from oiyolo.networks import builders
from oiyolo.operations.doctor import checks
from oiyolo.operations.doctor import collect as collect
from oiyolo.operations.doctor.facts import MachineFacts
from oiyolo.operations.doctor.parallel import NoAnswer, gather
from oiyolo.operations.doctor.reachability import check_endpoints
from oiyolo.project import config as config_file
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Unpack

    from oiyolo.operations.doctor.facts import CheckResult, DarknetStatus
    from oiyolo.project.keywords import AllKeywords
    from oiyolo.project.project import ProjectLike

_DEADLINE_S: Final = 30.0
"""Programs usually answer within two seconds; a sleeping GPU or a busy machine takes longer."""


@dataclass(frozen=True)
class Examination(Result):
    """The results of ``oiyolo doctor``.

    Attributes:
        results: The results of all checks, in the order of the table.
        facts: The facts about the machine that were checked.
        exit_code: 0 if training can start, else that of the first check that prevents it.
    """

    results: Sequence[CheckResult]
    facts: MachineFacts
    exit_code: int

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        facts = self.facts
        status, tools = facts.darknet_status, facts.toolchain
        darknet = status.darknet.as_dict() if status and status.darknet else None
        return {
            "can_train": self.exit_code == 0,
            "exit_code": self.exit_code,
            "verdict": self.summary,
            "findings": [result.as_dict() for result in self.results],
            "python": facts.python,
            "machine": facts.machine,
            "packages": None if facts.packages is None else [asdict(p) for p in facts.packages],
            "onnxruntime": facts.onnxruntime and asdict(facts.onnxruntime),
            "darknet": darknet
            and {
                **darknet,
                "revision": status and status.revision,
                "proved": status and status.verified,
            },
            "engine": facts.engine and {"name": facts.engine.engine, "why": facts.engine.reason},
            "toolchain": tools and tools.as_dict(),
            "driver": facts.driver and asdict(facts.driver),
            "disks": [{**asdict(disk), "path": str(disk.path)} for disk in facts.disks],
            "reached": None if facts.endpoints is None else [asdict(r) for r in facts.endpoints],
        }

    @property
    def summary(self) -> str:
        """A sentence on whether training can start."""
        return checks.summary(self.facts, self.results)

    def __str__(self) -> str:
        return "\n".join([_table(self.results), "", self.summary])


def _table(results: Sequence[CheckResult]) -> str:
    """Return the results as a table, each with its remedy below it."""
    heads = [("", ""), *((result.topic, result.state) for result in results)]
    margins = format_table(heads, right=False).splitlines()
    margin = max(map(len, margins)) + 2
    lines = []
    for head, result in zip(margins[1:], results, strict=True):
        first, others = head.ljust(margin), " " * margin
        lines += _wrap(result.found, first, others) or [head]
        if result.remedy:
            lines += _wrap(result.remedy + ".", others + "-> ", others + "   ", break_words=False)
    return "\n".join(lines)


def _wrap(text: str, first: str, others: str, *, break_words: bool = True) -> list[str]:
    """Return a text in lines that begin with ``first`` and ``others``."""
    return textwrap.wrap(
        text,
        TERMINAL_WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words=break_words,
    )


@takes_keys()
def doctor(
    project: ProjectLike = ".", *, offline: bool = False, **options: Unpack[AllKeywords]
) -> Examination:
    """Check whether this machine can train, and advise on what is missing or incompatible.

    Changes nothing, and works outside of projects too.

    Args:
        project: An open project or its folder.
        offline: Whether to skip the checks of servers and other sources.
        **options: Any key.

    Raises:
        UsageError: An option is invalid. (An invalid ``oiyolo.toml`` is reported as a result.)
    """
    opened, project_text, problem = _open(project, options)
    tasks: dict[str, Callable[[], Any]] = {
        "packages": collect.packages,
        "onnxruntime": collect.onnxruntime,
        "tools": toolchain.find,
        "driver": collect.driver,
        "darknet": lambda: collect.darknet_status(opened),
        "engine": lambda: collect.engine_status(opened),
        "disks": lambda: collect.disks(opened),
    }
    answers = gather(tasks, deadline_s=_DEADLINE_S)
    failed_checks = [
        (name, str(answer)) for name, answer in answers.items() if isinstance(answer, NoAnswer)
    ]
    received = {
        name: answer for name, answer in answers.items() if not isinstance(answer, NoAnswer)
    }
    status: DarknetStatus | None = received.get("darknet")
    needs_sources = status is not None and status.darknet is None and not status.is_local
    sources_url = (opened.config.darknet.source_url or "") if needs_sources else ""
    facts = MachineFacts(
        python=collect.python(),
        machine=collect.machine(),
        project=project_text,
        project_problem=problem,
        packages=received.get("packages"),
        onnxruntime=received.get("onnxruntime"),
        toolchain=received.get("tools"),
        driver=received.get("driver"),
        darknet_status=status,
        engine=received.get("engine"),
        disks=received.get("disks", ()),
        endpoints=None if offline else check_endpoints(opened, sources_url),
        failed_checks=failed_checks,
    )
    results = checks.run_checks(facts)
    return Examination(results, facts, checks.exit_code(results))


def _open(
    project: ProjectLike, options: Mapping[str, object]
) -> tuple[Project, str, tuple[str, int] | None]:
    """Return the project, its description and its problem; default options if it has no valid file.

    The description is a text for the table. The problem, or ``None``, is a message with its exit
    code.
    """
    if isinstance(project, Project):
        return project, str(project.folder), None
    folder = Path(project).absolute()
    path = folder / config_file.FILE_NAME
    if not path.is_file():
        config = config_file.load(path, options)
        return Project(folder, config), f"none in {folder}; using the default options", None
    try:
        config = config_file.load(path, options)
        builders.find_network(config.train.network)
        return Project(folder, config), str(folder), None
    except OiyoloError as error:
        # This raises if an option of the command line is invalid.
        config = config_file.load(folder / "without a file" / path.name, options)
        return Project(folder, config), str(folder), (str(error), error.exit_code)
