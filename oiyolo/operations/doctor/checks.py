"""From facts about a machine to findings: what is well, what is missing, what to do; pure."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import DarknetError, UnavailableError, UsageError
from oiyolo.core.results import count
from oiyolo.darknet.build.toolchain import numbers
from oiyolo.operations.doctor import cuda
from oiyolo.operations.doctor.facts import DARKNET_SOURCES, Finding
from oiyolo.planning.units import told_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.operations.doctor.facts import Disk, Facts, Package, Reached, Seen

_TOOLS: Final = (
    ("git", "git", "git", "to fetch darknet's sources"),
    ("make", "make", "build-essential", "to build darknet"),
    ("gcc", "gcc", "build-essential", "to build darknet"),
    ("g++", "gxx", "build-essential", "to build darknet"),
    ("cmake", "cmake", "cmake", "to build hank-ai's darknet, from 3.24 on"),
)
"""As a person calls it, as the toolchain does, its package in Debian, what it is for."""
_NEEDED_TO_BUILD: Final = ("make", "gcc", "gxx")
_WAYS: Final = (
    "`apt-get install darknet` (CPU); or `git submodule update --init darknet` in the checkout; or "
    "set [darknet] executable or source"
)
_COMFORT_BYTES: Final = 10 * 10**9
"""Images, weights and logs of a usual project fit in this."""


def judge(facts: Facts) -> list[Finding]:
    """Judge all facts, in the order of the table."""
    found = chain(
        [Finding("machine", "ok", facts.machine), Finding("Python", "ok", facts.python)],
        judge_packages(facts.packages),
        [_project(facts)],
        []
        if facts.seen is None
        else [judge_darknet(facts.seen, facts.toolchain, facts.reached or ())],
        _gpus(facts),
        [] if facts.toolchain is None else judge_tools(facts.toolchain),
        map(judge_disk, facts.disks),
        map(judge_reached, facts.reached or ()),
        (_unseen(what, why) for what, why in facts.trouble),
    )
    return list(found)


def exit_code(findings: Sequence[Finding]) -> int:
    """Give the exit code: 0 when a training could start, else that of the first hindrance."""
    return next((found.exit_code for found in findings if found.exit_code), 0)


def verdict(facts: Facts, findings: Sequence[Finding]) -> str:
    """Say in a sentence whether a training could start, and on what."""
    hindrances = [found.topic for found in findings if found.exit_code]
    if hindrances:
        return f"No training can start here yet: see {', '.join(hindrances)}."
    darknet = facts.seen.darknet if facts.seen else None
    if darknet is None:
        return "A training can start here, once darknet is built: `oiyolo build`."
    return f"A training can start here, on the {'GPU' if darknet.gpu else 'CPU'}."


def _project(facts: Facts) -> Finding:
    if facts.project_problem is None:
        return Finding("project", "ok", facts.project)
    told, code = facts.project_problem
    return Finding("project", "warning", told, "Mend its oiyolo.toml", code)


def _unseen(what: str, why: str) -> Finding:
    blocking = {"darknet": DarknetError.exit_code, "disks": UnavailableError.exit_code}
    return Finding(what, "warning", f"could not be looked at: {why}", "Try again with -v",
                   blocking.get(what, 0))  # fmt: skip


def judge_packages(packages: Sequence[Package] | None) -> Iterator[Finding]:
    """Judge the packages: one row if all are well, one for each that is not."""
    if packages is None:
        yield Finding(
            "packages",
            "warning",
            "oiyolo is not installed as a package, so nothing is known of what it needs",
            "Install it: `pip install /path/to/the/clone`",
        )
        return
    wrong = [package for package in packages if not _is_well(package)]
    for package in wrong:
        wish = f"{package.name}>={package.needed}" if package.needed else package.name
        code = 0 if package.extra else UsageError.exit_code
        if package.found:
            found = f"{package.found}, needed is {package.needed} or newer"
            yield Finding(package.name, "warning", found, f"pip install '{wish}'", code)
        else:
            yield Finding(package.name, "missing", "not installed", f"pip install '{wish}'", code)
    needed = [package for package in packages if not package.extra]
    if not any(package in needed for package in wrong):
        absent = sorted({package.extra for package in packages if not package.found})
        without = f"; without the extras {', '.join(absent)}" if absent else ""
        told = f"{count(len(needed), 'package')}, each new enough{without}"
        yield Finding("packages", "ok", told)


def _is_well(package: Package) -> bool:
    if not package.found:
        return bool(package.extra)
    return not package.needed or _release(package.found) >= _release(package.needed)


def _release(version: str) -> tuple[int, ...]:
    """Give a version's numbers, without zeros at the end: 2.0 is 2, and 2.1rc1 counts as 2.1."""
    found = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    release = list(numbers(found[1])) if found else []
    while release and release[-1] == 0:
        release.pop()
    return tuple(release)


def judge_tools(toolchain: Toolchain) -> Iterator[Finding]:
    """Judge what darknet is fetched and built with."""
    for name, key, package, purpose in _TOOLS:
        version: str = getattr(toolchain, key)
        if version:
            yield Finding(name, "ok", version)
        else:
            remedy = f"{purpose[0].upper()}{purpose[1:]}: apt-get install {package}"
            yield Finding(name, "missing", "not found", remedy)


def judge_darknet(
    seen: Seen, toolchain: Toolchain | None, reached: Sequence[Reached] = ()
) -> Finding:
    """Judge the darknet that would be used.

    Args:
        seen: What there is of it.
        toolchain: What it could be built with.
        reached: Where its sources could come from.
    """
    darknet = seen.darknet
    if darknet is None:
        return _no_darknet(seen, toolchain, reached)
    where = "GPU" if darknet.gpu else "CPU"
    found = ", ".join(
        part for part in (f"{darknet.line.title}", seen.revision, where, darknet.origin) if part
    )
    found = f"{darknet.executable}: {found}"
    if darknet.gpu and toolchain is not None and not toolchain.has_driver:
        return Finding(
            "darknet",
            "warning",
            f"{found}; and no driver is here",
            "Install NVIDIA's driver, or build one for the CPU: `oiyolo build --build-gpu no`",
            DarknetError.exit_code,
        )
    if seen.outdated:
        told = f"{found}; it would be built anew: {seen.outdated}"
        return Finding("darknet", "warning", told, "`oiyolo build` does it")
    if toolchain is not None and toolchain.gpus and not darknet.gpu:
        return Finding(
            "darknet",
            "warning",
            f"{found}; and there is a GPU, which it does not use",
            "Build one for it: `oiyolo build --build-gpu yes`",
        )
    if not seen.proved:
        told = f"{found}; not proved yet"
        return Finding("darknet", "warning", told, "`oiyolo build` lets it train two iterations")
    return Finding("darknet", "ok", f"{found}, proved")


def _no_darknet(seen: Seen, toolchain: Toolchain | None, reached: Sequence[Reached]) -> Finding:
    if seen.problem:
        return Finding(
            "darknet",
            "warning",
            seen.problem,
            "Mend or take out [darknet] executable or source; or `oiyolo build` makes a new one",
            DarknetError.exit_code,
        )
    needed = _NEEDED_TO_BUILD if seen.is_here else ("git", *_NEEDED_TO_BUILD)
    lacking = [
        name
        for name, key, *_ in _TOOLS
        if key in needed and (toolchain is None or not getattr(toolchain, key))
    ]
    lacking += [place.place for place in reached if place.what == DARKNET_SOURCES and place.problem]
    if seen.source and not lacking:
        found = f"none yet; it can be built from {seen.source}"
        return Finding("darknet", "warning", found, "`oiyolo build` does it")
    if seen.source:
        return Finding(
            "darknet",
            "missing",
            f"none; to build it from {seen.source}, {' and '.join(lacking)} would be needed",
            f"{_WAYS}; or apt-get install build-essential git, and `oiyolo build`",
            DarknetError.exit_code,
        )
    return Finding(
        "darknet", "missing", "none, and no sources of it", _WAYS, DarknetError.exit_code
    )


def _gpus(facts: Facts) -> Iterator[Finding]:
    if facts.toolchain is not None and facts.driver is not None:
        yield from cuda.judge(facts.toolchain, facts.driver)


def judge_disk(disk: Disk) -> Finding:
    """Judge the room in one place."""
    topic = f"disk: {disk.what}"
    found = f"{told_bytes(disk.free_bytes)} free in {disk.path}"
    if disk.free_bytes < disk.needed_bytes:
        told = f"{found}, {told_bytes(disk.needed_bytes)} needed"
        return Finding(topic, "warning", told, disk.remedy, UnavailableError.exit_code)
    if disk.free_bytes < disk.needed_bytes + _COMFORT_BYTES:
        return Finding(topic, "warning", found, "`oiyolo plan` tells whether that is enough")
    return Finding(topic, "ok", found)


def judge_reached(reached: Reached) -> Finding:
    """Judge whether something comes from where it should."""
    if reached.problem:
        told = f"{reached.place}: {reached.problem}"
        return Finding(reached.what, "warning", told, reached.remedy)
    return Finding(reached.what, "ok", f"{reached.place} {reached.answer}".strip())
