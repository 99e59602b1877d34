"""Turn facts about a machine into check results with remedies. No side effects."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import DarknetError, UnavailableError, UsageError
from oiyolo.core.results import pluralize
from oiyolo.core.units import format_bytes
from oiyolo.darknet.build.toolchain import version_tuple
from oiyolo.operations.doctor import cuda
from oiyolo.operations.doctor.facts import DARKNET_SOURCES, CheckResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.darknet.build.toolchain import Toolchain
    from oiyolo.operations.doctor.facts import (
        DarknetStatus,
        Disk,
        Endpoint,
        EngineStatus,
        MachineFacts,
        OnnxRuntime,
        Package,
    )

_TOOLS: Final = (
    ("git", "git", "git", "to fetch darknet's sources"),
    ("make", "make", "build-essential", "to build darknet"),
    ("gcc", "gcc", "build-essential", "to build darknet"),
    ("g++", "gxx", "build-essential", "to build darknet"),
    ("cmake", "cmake", "cmake", "to build hank-ai's darknet, from 3.24 on"),
)
"""Name of the tool, attribute of ``Toolchain``, Debian package, purpose."""
_NEEDED_TO_BUILD: Final = ("make", "gcc", "gxx")
_INSTALL_ADVICE: Final = (
    "`apt-get install darknet` (CPU); or `git submodule update --init darknet` in the checkout; or "
    "set [darknet] executable or source"
)
_COMFORTABLE_BYTES: Final = 10 * 10**9
"""Enough for the images, weights and logs of a typical project."""


def run_checks(facts: MachineFacts) -> list[CheckResult]:
    """Return the results of all checks, in the order of the table."""
    results = chain(
        [CheckResult("machine", "ok", facts.machine), CheckResult("Python", "ok", facts.python)],
        check_packages(facts.packages),
        [] if facts.onnxruntime is None else [check_onnxruntime(facts.onnxruntime)],
        [_check_project(facts)],
        [] if facts.engine is None else [check_engine(facts.engine)],
        _check_used_darknet(facts),
        _check_gpus(facts),
        [] if facts.toolchain is None else cuda.check_loading(facts.toolchain),
        [] if facts.toolchain is None else check_tools(facts.toolchain),
        map(check_disk, facts.disks),
        map(check_endpoint, facts.endpoints or ()),
        (_failed_check(what, why) for what, why in facts.failed_checks),
    )
    return list(results)


def exit_code(results: Sequence[CheckResult]) -> int:
    """Return 0 if training can start, else the exit code of the first check that prevents it."""
    return next((result.exit_code for result in results if result.exit_code), 0)


def summary(facts: MachineFacts, results: Sequence[CheckResult]) -> str:
    """Return a sentence on whether training can start, and on which processor."""
    blocking_topics = [result.topic for result in results if result.exit_code]
    if blocking_topics:
        return f"This machine cannot train yet: see {', '.join(blocking_topics)}."
    if facts.engine is not None and facts.engine.engine == "torch":
        return f"This machine can train on the {'GPU' if facts.engine.gpu else 'CPU'}, with torch."
    darknet = facts.darknet_status.darknet if facts.darknet_status else None
    if darknet is None:
        return "This machine can train once darknet is built: run `oiyolo build`."
    return f"This machine can train on the {'GPU' if darknet.gpu else 'CPU'}."


def check_engine(status: EngineStatus) -> CheckResult:
    """Check what would train."""
    if not status.engine:
        return CheckResult("engine", "missing", status.reason, status.remedy, status.exit_code)
    return CheckResult("engine", "ok", f"{status.engine}: {status.reason}")


def _check_used_darknet(facts: MachineFacts) -> Iterator[CheckResult]:
    """Check the darknet; its problems do not prevent training with another engine."""
    if facts.darknet_status is None:
        return
    result = check_darknet(facts.darknet_status, facts.toolchain, facts.endpoints or ())
    trains_with_torch = facts.engine is not None and facts.engine.engine == "torch"
    yield replace(result, exit_code=0) if trains_with_torch else result


def _check_project(facts: MachineFacts) -> CheckResult:
    if facts.project_problem is None:
        return CheckResult("project", "ok", facts.project)
    message, code = facts.project_problem
    return CheckResult("project", "warning", message, "Correct its oiyolo.toml", code)


def _failed_check(what: str, why: str) -> CheckResult:
    blocking = {"darknet": DarknetError.exit_code, "disks": UnavailableError.exit_code}
    return CheckResult(what, "warning", f"the check failed: {why}", "Try again with -v",
                   blocking.get(what, 0))  # fmt: skip


def check_packages(packages: Sequence[Package] | None) -> Iterator[CheckResult]:
    """Check the installed packages: one result if all are fine, else one for each problem."""
    if packages is None:
        yield CheckResult(
            "packages",
            "warning",
            "oiyolo is not installed as a package, so its requirements are unknown",
            "Install it with `pip install /path/to/the/clone`",
        )
        return
    unsatisfied = [package for package in packages if not _is_satisfied(package)]
    for package in unsatisfied:
        requirement = f"{package.name}>={package.needed}" if package.needed else package.name
        code = 0 if package.extra else UsageError.exit_code
        if package.found:
            text = f"{package.found}, but {package.needed} or newer is required"
            yield CheckResult(package.name, "warning", text, f"pip install '{requirement}'", code)
        else:
            yield CheckResult(
                package.name, "missing", "not installed", f"pip install '{requirement}'", code
            )
    needed = [package for package in packages if not package.extra]
    if not any(package in needed for package in unsatisfied):
        absent = sorted({package.extra for package in packages if not package.found})
        without = f"; extras not installed: {', '.join(absent)}" if absent else ""
        message = f"{pluralize(len(needed), 'package')}, all recent enough{without}"
        yield CheckResult("packages", "ok", message)


def _is_satisfied(package: Package) -> bool:
    if not package.found:
        return bool(package.extra)
    return not package.needed or _release_numbers(package.found) >= _release_numbers(package.needed)


def _release_numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers without trailing zeros: 2.0 as (2,), and 2.1rc1 as (2, 1)."""
    match = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    release = list(version_tuple(match[1])) if match else []
    while release and release[-1] == 0:
        release.pop()
    return tuple(release)


def check_onnxruntime(runtime: OnnxRuntime) -> CheckResult:
    """Check the onnxruntime with which detectors are run and exported."""
    topic = "onnxruntime"
    text = ", ".join(f"{name} {version}" for name, version in runtime.packages.items())
    if len(runtime.packages) > 1:
        return CheckResult(
            topic,
            "warning",
            f"{text}: they replace each other's files, so that a GPU may not be used",
            f"pip uninstall {' '.join(runtime.packages)}; then install one of them only: "
            "onnxruntime-gpu for an NVIDIA GPU, else onnxruntime",
        )
    if runtime.problem:
        remedy = f"pip install --force-reinstall {next(iter(runtime.packages), topic)}"
        return CheckResult(topic, "warning", f"{text or 'none'}: {runtime.problem}", remedy)
    return CheckResult(topic, "ok", f"{text}, computes on {', '.join(runtime.providers)}")


def check_tools(toolchain: Toolchain) -> Iterator[CheckResult]:
    """Check the tools that fetch and build darknet."""
    for name, key, package, purpose in _TOOLS:
        version: str = getattr(toolchain, key)
        if version:
            yield CheckResult(name, "ok", version)
        else:
            remedy = f"{purpose[0].upper()}{purpose[1:]}: apt-get install {package}"
            yield CheckResult(name, "missing", "not found", remedy)


def check_darknet(
    status: DarknetStatus, toolchain: Toolchain | None, endpoints: Sequence[Endpoint] = ()
) -> CheckResult:
    """Check the darknet that ``train`` would use.

    Args:
        status: The darknet, or what it could be built from.
        toolchain: The toolchain to build it with; ``None`` if unknown.
        endpoints: The endpoints that were checked, with the one that provides darknet's sources.
    """
    darknet = status.darknet
    if darknet is None:
        return _check_darknet_sources(status, toolchain, endpoints)
    where = "GPU" if darknet.gpu else "CPU"
    parts = (darknet.fork.title, status.revision, where, darknet.origin)
    text = f"{darknet.executable}: {', '.join(part for part in parts if part)}"
    code = 0
    if darknet.gpu and toolchain is not None and not toolchain.has_driver:
        problem = "but there is no NVIDIA driver"
        remedy = "Install the NVIDIA driver, or build a CPU version: `oiyolo build --build-gpu no`"
        code = DarknetError.exit_code
    elif status.rebuild_reason:
        problem, remedy = f"it is out of date: {status.rebuild_reason}", "Run `oiyolo build`"
    elif toolchain is not None and toolchain.gpus and not darknet.gpu:
        problem = "it does not use this machine's GPU"
        remedy = "Build a GPU version: `oiyolo build --build-gpu yes`"
        if "[darknet]" in darknet.origin:  # which would be used instead of the new build
            remedy += ", without [darknet] executable"
    elif not status.verified:
        problem = "not verified yet"
        remedy = "Run `oiyolo build`, which trains two iterations with it"
    else:
        return CheckResult("darknet", "ok", f"{text}, verified")
    return CheckResult("darknet", "warning", f"{text}; {problem}", remedy, code)


def _check_darknet_sources(
    status: DarknetStatus, toolchain: Toolchain | None, endpoints: Sequence[Endpoint]
) -> CheckResult:
    if status.problem:
        return CheckResult(
            "darknet",
            "warning",
            status.problem,
            status.remedy
            or "Correct or remove [darknet] executable or source, or build one with `oiyolo build`",
            DarknetError.exit_code,
        )
    needed = _NEEDED_TO_BUILD if status.is_local else ("git", *_NEEDED_TO_BUILD)
    missing = [
        name
        for name, key, *_ in _TOOLS
        if key in needed and (toolchain is None or not getattr(toolchain, key))
    ]
    missing += [e.place for e in endpoints if e.what == DARKNET_SOURCES and e.problem]
    if status.source and not missing:
        text = f"none yet; it can be built from {status.source}"
        remedy = "Run `oiyolo build`; otherwise `oiyolo train` builds it first"
        return CheckResult("darknet", "warning", text, remedy)
    text, remedy = "none, and no sources to build it from", _INSTALL_ADVICE
    if status.source:
        text = f"none; building it from {status.source} requires {' and '.join(missing)}"
        remedy += "; or apt-get install build-essential git, and `oiyolo build`"
    return CheckResult("darknet", "missing", text, remedy, DarknetError.exit_code)


def _check_gpus(facts: MachineFacts) -> Iterator[CheckResult]:
    if facts.toolchain is not None and facts.driver is not None:
        yield from cuda.check_gpus(facts.toolchain, facts.driver)


def check_disk(disk: Disk) -> CheckResult:
    """Check the free space of a disk."""
    topic = f"disk: {disk.what}"
    text = f"{format_bytes(disk.free_bytes)} free in {disk.path}"
    if disk.free_bytes < disk.needed_bytes:
        message = f"{text}, but {format_bytes(disk.needed_bytes)} are needed"
        return CheckResult(topic, "warning", message, disk.remedy, UnavailableError.exit_code)
    if disk.free_bytes < disk.needed_bytes + _COMFORTABLE_BYTES:
        return CheckResult(topic, "warning", text, "Run `oiyolo plan` to see whether it is enough")
    return CheckResult(topic, "ok", text)


def check_endpoint(endpoint: Endpoint) -> CheckResult:
    """Check whether a source of images, labels or weights can be used."""
    if endpoint.problem:
        message = f"{endpoint.place}: {endpoint.problem}"
        return CheckResult(endpoint.what, "warning", message, endpoint.remedy)
    return CheckResult(endpoint.what, "ok", f"{endpoint.place} {endpoint.answer}".strip())
