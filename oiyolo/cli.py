"""The command line: the only place that prints and decides exit codes.

Every command is one call of the library function of the same name; its options are that function's
keywords, and those that are keys of ``oiyolo.toml`` are made from their declaration in ``config``.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

import click

from oiyolo import __version__
from oiyolo.core import progress
from oiyolo.core.errors import INTERRUPTED_EXIT_CODE, OiyoloError, UnavailableError, UsageError
from oiyolo.project.keys import KEYS
from oiyolo.project.value_types import Flag, Maybe, OrAuto, Words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oiyolo.project.keys import Key

_TRACEBACK_VERBOSITY: Final = 2
SECTIONS: Final = tuple(dict.fromkeys(key.section for key in KEYS))


class _KeyType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since 8.4
    """A key's value, read as its declaration says."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.name = "text"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """See click."""
        if not isinstance(value, str):
            return value
        try:
            return self.key.value(value, where=f"--{self.key.option}", is_text=True)
        except OiyoloError as error:
            self.fail(str(error), param, ctx)


def _option_of(key: Key) -> click.Option:
    """Make a key of ``oiyolo.toml`` an option."""
    kind = key.kind.kind if isinstance(key.kind, (OrAuto, Maybe)) else key.kind
    told = f"{key.told}  ({key.path}, default {_shown(key.default)})"
    if isinstance(kind, Flag):
        names = [f"--{key.option}/--no-{key.option}", key.name]
        return click.Option(names, default=None, help=told)
    many = isinstance(kind, Words)
    return click.Option(
        [f"--{key.option}", key.name],
        type=None if many else _KeyType(key),
        multiple=many,
        metavar=kind.placeholder,
        help=told + ("; may be given again" if many else ""),
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "unset" if value is None else str(value)


def _calling(name: str) -> Callable[..., None]:
    """Give the body of a command: call the function, print what it returns."""

    def call(*, as_json: bool, quiet: bool, verbose: int, **given: object) -> None:
        import oiyolo

        one_line = name == "refresh" and not verbose  # cron mails whatever is printed
        _tell(quiet=quiet or one_line, verbose=verbose)
        keywords = {key: None if value == () else value for key, value in given.items()}
        result = getattr(oiyolo, name)(**keywords)
        if as_json:
            click.echo(json.dumps(_jsonable(result.as_dict()), ensure_ascii=False))
        else:
            click.echo(str(result))
        if exit_code := getattr(result, "exit_code", 0):  # a check that found something
            raise click.exceptions.Exit(exit_code)

    return call


def _jsonable(value: object) -> object:
    """Replace nan and infinity, which JSON does not know, by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value


class _Lines(logging.Handler):
    """Log lines on stderr that do not run into a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging``."""
        text = self.format(record)
        tqdm = sys.modules.get("tqdm.std")
        if tqdm is not None:
            tqdm.tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def _tell(*, quiet: bool, verbose: int) -> None:
    log = logging.getLogger("oiyolo")
    log.handlers = [_Lines()]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    progress.shown.set(not quiet)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; give its exit code.

    Args:
        arguments: Without the program's name; the process's own if not given.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    # cron, batch systems and spot VMs end a program with SIGTERM: let it end as with Ctrl-C.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(given, as_json=as_json)
    except BrokenPipeError:  # the reader of a pipe has had enough
        sys.stderr.close()
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(given: list[str], *, as_json: bool) -> int:
    try:
        ended = commands.main(given, prog_name="oiyolo", standalone_mode=False)
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (a sentence for a person)
        if not isinstance(error, (click.ClickException, KeyboardInterrupt)):
            _trace(given)
        text, exit_code = _explained(error)
        parts = error.as_dict() if isinstance(error, OiyoloError) else {}
        click.echo(f"oiyolo: {text}", err=True)
        if as_json:
            click.echo(json.dumps({"error": text, **parts, "exit_code": exit_code}))
        return exit_code
    return ended if isinstance(ended, int) else 0  # click gives the code of its Exit


def _explained(error: BaseException) -> tuple[str, int]:
    """Give an error as a sentence, and its exit code."""
    if isinstance(error, OiyoloError):
        return str(error), error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted; the same command goes on from here", INTERRUPTED_EXIT_CODE
    if isinstance(error, click.ClickException):
        hint = _hint(error) if isinstance(error, click.UsageError) else ""
        return error.format_message() + hint, UsageError.exit_code
    if isinstance(error, OSError):  # the disk's, or a file's rights
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        told = f"{error.filename or 'the disk'}: {error.strerror or error}"
        return told, UnavailableError.exit_code if full else OiyoloError.exit_code
    told = f"unexpected {type(error).__name__}: {error}. With -vv it tells where."
    return told, OiyoloError.exit_code


def _hint(error: click.UsageError) -> str:
    return f" `{error.ctx.command_path} --help` lists what there is." if error.ctx else ""


def _trace(given: Sequence[str]) -> None:
    shorts = (word[1:] for word in given if word.startswith("-") and not word.startswith("--"))
    verbosity = sum(word.count("v") for word in shorts) + given.count("--verbose")
    if verbosity >= _TRACEBACK_VERBOSITY:
        traceback.print_exc()


class _InOrderOfWork(click.Group):
    """Lists commands as they follow each other, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's form)
        """See click."""
        return list(self.commands)


@click.group(
    cls=_InOrderOfWork,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: oiyolo demo; or: oiyolo fetch --class Boat",
)
@click.version_option(__version__, prog_name="oiyolo")
def commands() -> None:
    """From a class name to a trained YOLO detector, out of Open Images, with darknet."""


def _add(
    name: str,
    told: str,
    *own: click.Parameter,
    keys: Sequence[str] = (),
    acts: bool = True,
    has_project: bool = True,
) -> None:
    """Add the command that calls the library's function of the same name.

    Args:
        name: The command and the function.
        told: What it does, in a sentence.
        own: Options that are no keys of ``oiyolo.toml``.
        keys: Sections whose keys are options too.
        acts: It changes something, so it can be asked for a plan.
        has_project: It works in a project's folder.
    """
    params = [*own, *(_option_of(key) for key in KEYS if key.section in keys)]
    if has_project:
        params.append(_option("--project", metavar="DIR", default=".", help="The project's folder"))
    if acts:
        params.append(_option("--dry-run", is_flag=True, help="Only tell what would be done."))
    params += [
        _option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
        _option("-q", "--quiet", is_flag=True, help="Only the result, and warnings."),
        _option("-v", "--verbose", count=True, help="More; -vv with tracebacks."),
    ]
    commands.add_command(click.Command(name, params=params, help=told, callback=_calling(name)))


def _option(*names: str, **settings: Any) -> click.Option:  # noqa: ANN401  (click's own)
    return click.Option(list(names), **settings)


def _run_option() -> click.Option:
    return _option("--run", metavar="NAME", help="A run's name  [the latest one]")


_add("init", "Begin a project: write its oiyolo.toml.", keys=SECTIONS)
_add(
    "classes",
    "List Open Images' classes, or tell what stands above and below some of them.",
    click.Argument(["names"], nargs=-1, metavar="[NAME]..."),
    _option("--tree", is_flag=True, help="Show all that is below each class."),
    keys=("openimages",),
    acts=False,
)
_add(
    "plan",
    "Tell what a run will fetch, need and cost, before the first image.",
    _option("--bandwidth-mb-s", type=float, metavar="NUMBER", help="Expected megabytes a second."),
    _option(
        "--seconds-per-iteration",
        type=float,
        metavar="NUMBER",
        help="Expected seconds for one iteration of the training.",
    ),
    keys=SECTIONS,
)
_add("select", "Select images and boxes by class.", keys=("dataset", "openimages"))
_add(
    "fetch",
    "Fetch the selected images, each verified or excluded with a reason.",
    _option("--retry", type=click.Choice(["failed", "all"]), help="Try failed ones again, or all."),
    _option(
        "--transfer",
        metavar="gs://BUCKET/PREFIX",
        help="Let Google copy the originals into a bucket of yours first, and fetch from there.",
    ),
    _option(
        "--shard",
        metavar="I/N",
        help="Fetch the I-th of N parts only, counted from 0; for several machines at once.",
    ),
    _option(
        "--cluster",
        metavar="ADDRESS",
        help="Let the workers of a Dask cluster fetch: its scheduler, as tcp://host:8786.",
    ),
    _option("--shards", type=int, metavar="N", help="With --cluster: parts to make."),
    _option(
        "--to",
        metavar="gs://BUCKET/PREFIX",
        help="With --cluster: let the workers copy into a bucket, without a shared folder.",
    ),
    keys=("dataset", "openimages", "images"),
)
_add(
    "prepare",
    "Make images upright and small, with their labels beside them.",
    keys=("images",),
)
_add(
    "split",
    "Divide the images into train, valid and test, for ever.",
    _option("--reassign", is_flag=True, help="Forget all splits and deal anew."),
    _option(
        "--check",
        is_flag=True,
        help="Change nothing; prove that no image, near-duplicate or author is in two splits.",
    ),
    keys=("split", "images"),
)
_add("build", "Find a darknet or build one, and prove that it trains.", keys=("darknet",))
_add(
    "train",
    "Train a network, or go on with a training that did not end.",
    _option("--again", is_flag=True, help="A new run, though the same one is finished."),
    keys=("train", "darknet"),
)
_add(
    "plot",
    "Chart how a training goes: the latest run, a run by its name, or any darknet log; several of "
    "them side by side.",
    click.Argument(["log"], nargs=-1, metavar="[RUN|LOG]..."),
    _run_option(),
    _option("--follow", is_flag=True, help="Chart again as the log grows, until it ends."),
    _option(
        "--every-s",
        type=float,
        metavar="S",
        help="With --follow: at least so many seconds between two refreshes.  [10]",
    ),
    _option(
        "--idle-s",
        type=float,
        metavar="S",
        help="With --follow of a log that is no run's: it has ended when it has not grown for so "
        "many seconds.  [300]",
    ),
    _option("--tensorboard", metavar="DIR", help="Write event files for TensorBoard to DIR too."),
)
_add(
    "evaluate",
    "Score a run's detector on images that it never saw.",
    _run_option(),
    _option(
        "--split",
        type=click.Choice(["test", "valid"]),
        default="test",
        show_default=True,
        help="The images to score on.",
    ),
    _option("--weights", metavar="FILE", help="Other weights of this network."),
    keys=("darknet",),
)
_add("report", "Write one page about a run that opens anywhere.", _run_option())
_add("run", "Run all stages in a row, from class names to the report.", keys=SECTIONS)
_add("refresh", "Bring the dataset up to date; for cron: one line, and an exit code.")
_add("status", "Tell how many images are in which state.", acts=False)
_add("why", "Tell one image's whole story.", click.Argument(["image_id"]), acts=False)
_add(
    "doctor",
    "Tell what this machine has to train with, and what to do about what is missing.",
    _option("--offline", is_flag=True, help="Do not ask whether images and weights are reached."),
    keys=SECTIONS,
    acts=False,
)
_add(
    "demo",
    "Make a detector of boats from drawn scenes, in minutes, without the internet.",
    click.Argument(["folder"], default="oiyolo-demo"),
    _option("--seed", type=int, default=0, show_default=True, help="Another one, other scenes."),
    keys=("train", "darknet"),
    has_project=False,
)
