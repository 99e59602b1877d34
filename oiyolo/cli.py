"""The command line: the only place that prints and decides exit codes.

Every command calls the library function of the same name; its options are that function's keywords.
Options that are keys of ``oiyolo.toml`` are generated from their declaration in ``project.keys``.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from oiyolo import __version__
from oiyolo.core import output, progress
from oiyolo.core.errors import (
    INTERRUPTED_EXIT_CODE,
    OiyoloError,
    UnavailableError,
    UsageError,
    shorten,
)
from oiyolo.project.config import FILE_NAME, read_file
from oiyolo.project.keys import KEYS, KEYS_BY_NAME, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from oiyolo.project.keys import Key

_TRACEBACK_VERBOSITY: Final = 2
_STDERR: Final = 2
_PERMISSIONS: Final = "Check the owner and the permissions of this path"
_REMEDIES: Final = {
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.ENOSPC: "Free some space, then run the same command again",
    errno.EDQUOT: "Free some space, then run the same command again",
    errno.EROFS: "Make it writable, or copy the project to a place where you can write",
    errno.ENOTDIR: "A part of this path is a file; move it away, or choose another path",
    errno.EISDIR: "A folder is where a file is expected; move it away, or choose another path",
    errno.EEXIST: "Move away what is there, or choose another path",
    errno.ENOENT: "Check the path; a part of it is missing",
    errno.ENAMETOOLONG: "Choose a shorter path",
    errno.ELOOP: "Its symbolic links form a loop; remove them, or choose another path",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), then run the same command again",
    errno.ENFILE: "End other programs, then run the same command again",
}
_DISK_REMEDY: Final = "Check the disk, then run the same command again"


_OTHER_FUNCTIONS: Final = {"import": "import_images"}
"""Functions of commands whose names are keywords of Python."""


class _KeyType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since 8.4
    """The type of an option that is a key: parsed and checked as ``project.keys`` declares."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.name = "text"

    def convert(self, value: object, *_: object) -> object:
        """Return the checked value of an option's text, or raise its own error.

        Click's ``self.fail`` would name the option and say that the value is invalid once more.
        """
        if not isinstance(value, str):
            return value
        return self.key.value(value, where=f"--{self.key.option}", is_text=True)


def _check_list(key: Key) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], object]:
    """Return a callback that returns the values of a repeatable option, once all are checked."""

    def check(
        _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
    ) -> object:
        if values:
            key.value(values, where=f"--{key.option}")
        return values

    return check


def _key_option(key: Key) -> click.Option:
    """Return the option of a key of ``oiyolo.toml``."""
    help_text = f"{key.help_text}  ({key.path}, default {_default_text(key.default)})"
    if key.value_type.is_flag:
        names = [f"--{key.option}/--no-{key.option}", key.name]
        return click.Option(names, default=None, help=help_text)
    is_list = key.value_type.is_list
    return click.Option(
        [f"--{key.option}", key.name],
        type=None if is_list else _KeyType(key),
        multiple=is_list,
        callback=_check_list(key) if is_list else None,
        metavar=key.value_type.placeholder,
        help=help_text + ("; repeatable" if is_list else ""),
    )


def _default_text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "unset" if value is None else str(value)


def _callback(name: str) -> Callable[..., None]:
    """Return a command's callback, of this name: it calls the function and prints its result."""

    def call(*, as_json: bool, quiet: bool, verbose: int, **options: object) -> None:
        import oiyolo

        for_cron = name == "refresh" and not verbose  # cron mails everything printed
        _configure_logging(quiet=quiet or for_cron, verbose=verbose)
        if for_cron and quiet:
            _silence_warnings()  # they are in the log of refreshes
        keywords = {key: None if value == () else value for key, value in options.items()}
        try:
            result = getattr(oiyolo, name)(**keywords)
        except BrokenPipeError as error:  # not of stdout or stderr; click would end without a word
            raise UnavailableError("a program or server closed its connection") from error
        if as_json:
            _print(_as_json(result.as_dict()))
        elif not quiet or getattr(result, "shown_if_quiet", True):
            # A closed stdout is no failure of a job that no one watches.
            with contextlib.suppress(*[OiyoloError] * for_cron):
                _print(output.printable(str(result)))
        if exit_code := getattr(result, "exit_code", 0):  # a check that failed
            raise click.exceptions.Exit(exit_code)

    call.__name__ = name
    return call


def _as_json(value: object) -> str:
    return output.to_json(value, sys.stdout.encoding)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class _StderrHandler(logging.Handler):
    """Writes log lines to stderr without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one log record."""
        text = output.printable(self.format(record))
        tqdm = sys.modules.get("tqdm.std")
        if tqdm is not None:
            tqdm.tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def _configure_logging(*, quiet: bool, verbose: int) -> None:
    log = logging.getLogger("oiyolo")
    log.handlers = [_StderrHandler()]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    # It warns if the user has no home folder, as under some schedulers, although that is harmless.
    logging.getLogger("matplotlib").setLevel(logging.WARNING if verbose else logging.ERROR)
    progress.enabled.set(not quiet)


def _silence_warnings() -> None:
    """Print errors only; other handlers of the log still get the warnings."""
    for handler in logging.getLogger("oiyolo").handlers:
        handler.setLevel(logging.ERROR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        arguments: The words after the program's name; ``sys.argv[1:]`` by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    _fill_standard_descriptors()
    previous = _handle_signals()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = output.for_results(sys.stdout), output.lossy(sys.stderr)
    try:
        return _run(words, as_json=as_json)
    finally:
        sys.stdout, sys.stderr = streams
        for number, handler in previous.items():
            signal.signal(number, handler)


def _fill_standard_descriptors() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed.

    Otherwise the next file that is opened gets its number, and a library that prints writes into
    that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:  # the lowest free number
        os.set_inheritable(number, True)
    os.close(number)


def _handle_signals() -> dict[int, Any]:
    """Treat SIGTERM and SIGHUP like Ctrl-C; return the previous handlers.

    cron, batch systems and spot VMs send SIGTERM, a terminal that is closed SIGHUP (to which
    ``nohup`` makes a program immune).
    """
    numbers = [signal.SIGTERM]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    return {number: signal.signal(number, _interrupt) for number in numbers}


def _interrupt(*_: object) -> None:
    # A terminal sends its signal twice; the second one must not disturb the saving of the state.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(words: list[str], *, as_json: bool) -> int:
    try:
        status = commands.main(words, prog_name="oiyolo", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (users get a sentence)
        if not isinstance(error, (click.ClickException, KeyboardInterrupt)):
            _print_traceback(words)
        if isinstance(error, OSError):
            error = _os_error(error, words)
        text, exit_code = _message_and_exit_code(error)
        parts = error.as_dict() if isinstance(error, OiyoloError) else {}
        sys.stderr.write(f"oiyolo: {output.printable(text)}\n")
        if as_json:
            with contextlib.suppress(OiyoloError):  # stdout cannot be written to
                _print(_as_json({"error": text, **parts, "exit_code": exit_code}))
        return exit_code
    return status if isinstance(status, int) else 0  # click returns the code of its Exit


def _message_and_exit_code(error: BaseException) -> tuple[str, int]:
    """Return an error's message and the exit code it causes."""
    if isinstance(error, OiyoloError):
        return str(error), error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted; run the same command again to resume", INTERRUPTED_EXIT_CODE
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message(), UsageError.exit_code  # the help, which is never shortened
    if isinstance(error, click.ClickException):
        hint = _hint(error) if isinstance(error, click.UsageError) else ""
        return shorten(error.format_message()) + hint, UsageError.exit_code
    message = f"unexpected {type(error).__name__}: {shorten(str(error))}"
    return f"{message}. Run with -vv for a traceback.", OiyoloError.exit_code


def _os_error(error: OSError, words: Sequence[str]) -> OiyoloError:
    """Return the error for one of the operating system: a path, its permissions or the disk."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    kind = UsageError if path and _is_named(Path(path), words) else UnavailableError
    return kind(
        str(error.strerror or error),
        where=path,
        remedy=_REMEDIES.get(error.errno or 0, _DISK_REMEDY),
    )


def _is_named(path: Path, words: Sequence[str]) -> bool:
    """Return whether the user named a path, or the folder in which it is, outside the project."""
    texts = [word.rpartition("=")[2] for word in words if word]
    folder = next((b for a, b in itertools.pairwise(words) if a == "--project"), ".")
    project = Path(folder).absolute()
    named = {Path(text).absolute() for text in (*texts, *_configured_texts(project))}
    path = path.absolute()
    if path in {project, project / FILE_NAME, *project.parents, *named}:
        return True
    outside = named - {project, *project.parents}
    return not outside.isdisjoint(path.parents)


def _configured_texts(project: Path) -> list[str]:
    """Return the texts in the project's options, of which some are paths; none if unreadable."""
    try:
        sections = read_file(project / FILE_NAME).values()
    except (OSError, OiyoloError):
        return []
    values = [value for section in sections for value in section.values()]
    texts = [text for v in values for text in (v if isinstance(v, tuple) else (v,))]
    return [str(project / Path(text).expanduser()) for text in texts if isinstance(text, str)]


def _hint(error: click.UsageError) -> str:
    return (
        f" `{error.ctx.command_path} --help` lists the options and arguments." if error.ctx else ""
    )


def _print_traceback(words: Sequence[str]) -> None:
    short_flags = (word[1:] for word in words if word.startswith("-") and not word.startswith("--"))
    verbosity = sum(word.count("v") for word in short_flags) + words.count("--verbose")
    if verbosity >= _TRACEBACK_VERBOSITY:
        traceback.print_exc()


class _PipelineOrder(click.Group):
    """Lists commands in the order of the pipeline, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """Return the names of the commands."""
        return list(self.commands)


@click.group(
    cls=_PipelineOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: oiyolo demo; or: oiyolo fetch --class Boat",
)
@click.version_option(__version__, prog_name="oiyolo")
def commands() -> None:
    """Train a YOLO detector for a class name, from Open Images, with darknet."""


def _add(
    name: str,
    help_text: str,
    *own: click.Parameter,
    keys: Collection[str] = (),
    changes: bool = True,
    has_project: bool = True,
    group: click.Group = commands,
) -> None:
    """Add a command that calls the library function of the same name.

    Args:
        name: The name of the command and the function; in a group, the function's name begins with
            the group's, as in ``export_onnx``.
        help_text: What it does, in a sentence.
        own: Options that are not keys of ``oiyolo.toml``.
        keys: Sections whose keys are options, too.
        changes: Whether it changes anything, and so has ``--dry-run``.
        has_project: Whether it works in a project's folder.
        group: The group of commands that it belongs to.
    """
    params = [*own, *(_key_option(key) for key in KEYS if key.section in keys)]
    if has_project:
        params.append(
            _option("--project", metavar="DIR", default=".", help="The project's folder.")
        )
    if changes:
        params.append(
            _option("--dry-run", is_flag=True, help="Only print what the command would do.")
        )
    params += [
        _option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
        _option("-q", "--quiet", is_flag=True, help="Print only the result and warnings."),
        _option("-v", "--verbose", count=True, help="Print more; -vv adds tracebacks."),
    ]
    function = name if group is commands else f"{group.name}_{name.replace('-', '_')}"
    function = _OTHER_FUNCTIONS.get(function, function)
    group.add_command(
        click.Command(name, params=params, help=help_text, callback=_callback(function))
    )


def _option(*names: str, **settings: Any) -> click.Option:  # noqa: ANN401  (click's own types)
    return click.Option(list(names), **settings)


def _number(name: str, help_text: str, metavar: str = "NUMBER") -> click.Option:
    return _option(name, type=float, metavar=metavar, help=help_text)


def _detector_options() -> list[click.Option]:
    """Return the options that name the detector to use: a run, or files of darknet."""
    return [
        _option(
            "--run",
            metavar="NAME",
            help="Name of the run.  [default: the newest finished, else the newest with weights]",
        ),
        _option(
            "--cfg", metavar="FILE", help="Darknet network file (.cfg) to use instead of a run."
        ),
        _option("--weights", metavar="FILE", help="Weights file for --cfg or for the run."),
        _option("--names", metavar="FILE", help="Use the class names in this file."),
    ]


def _part_options() -> list[click.Option]:
    """Return the options of ``push`` and ``pull`` that say what is transferred."""
    return [
        _option("--split", multiple=True, metavar="NAME", help="Only this split, such as test."),
        _option("--run", multiple=True, metavar="NAME", help="Only this run; may be repeated."),
        _option("--overwrite", is_flag=True, help="Replace what the other side has changed."),
    ]


def _dataset_options(form: str) -> list[click.Option]:
    """Return the options of all exports of the dataset."""
    return [
        _option(
            "--out", metavar="DIR", help=f"The folder.  [default: exports/{form} in the project]"
        ),
        _option(
            "--images",
            type=click.Choice(["original", "prepared"]),
            default="original",
            show_default=True,
            help="The fetched images, turned upright, or those that darknet reads.",
        ),
    ]


def _run_option() -> click.Option:
    return _option(
        "--run", metavar="NAME", help="Name of the run.  [default: the newest that can be used]"
    )


_add("init", "Create a project: write its oiyolo.toml.", keys=SECTIONS)
_add(
    "classes",
    "List Open Images' classes, or one's parents and children.",
    click.Argument(["names"], nargs=-1, metavar="[NAME]..."),
    _option("--tree", is_flag=True, help="Show all descendants of each class."),
    keys=("openimages",),
    changes=False,
)
_add(
    "plan",
    "Estimate the downloads, disk, time and cost of a run.",
    _number("--bandwidth-mb-s", "Expected download speed, in megabytes per second."),
    _number("--seconds-per-iteration", "Expected seconds per training iteration."),
    _option("--gpu-name", help="GPU to plan for, such as T4; by default this machine's."),
    keys=SECTIONS,
)
_add("select", "Select images and boxes by class.", keys=("dataset", "openimages"))
_add(
    "fetch",
    "Fetch the selected images and verify each one.",
    _option(
        "--retry", type=click.Choice(["failed", "all"]), help="Fetch failed images again, or all."
    ),
    _option(
        "--transfer",
        metavar="gs://BUCKET/PREFIX",
        help="Have Google copy the originals into your bucket first, and fetch from there.",
    ),
    _option(
        "--shard",
        metavar="I/N",
        help="Fetch only shard I of N, counted from 0; for several machines at once.",
    ),
    _option(
        "--cluster",
        metavar="ADDRESS",
        help="Fetch with the workers of the Dask cluster at ADDRESS, such as tcp://host:8786.",
    ),
    _option("--shards", type=int, metavar="N", help="With --cluster: number of shards."),
    _option(
        "--to",
        metavar="gs://BUCKET/PREFIX",
        help="With --cluster: the workers copy into this bucket and need no shared folder.",
    ),
    keys=("dataset", "openimages", "images"),
)
_add(
    "import",
    "Import labelled images: from labelImg, Yolo_mark, Roboflow, COCO or an Open Images download.",
    click.Argument(["format_name"], metavar="FORMAT"),
    click.Argument(["path"], metavar="PATH"),
    _option(
        "--classes",
        multiple=True,
        metavar="NAME,...",
        help="Import only these classes.  [default: all]",
    ),
    _option(
        "--map",
        "class_map",
        multiple=True,
        metavar="THEIRS=OURS",
        help="Rename a class of the source; may be repeated.",
    ),
    _option(
        "--name",
        metavar="NAME",
        help="Name of the import, part of what identifies its images.  [default: the folder's]",
    ),
    _option(
        "--pixel-origin",
        type=click.IntRange(0, 1),
        default=1,
        show_default=True,
        help="With voc: coordinates of the top left pixel.",
    ),
    _option(
        "--exif",
        type=click.Choice(["stored", "upright"]),
        default="stored",
        show_default=True,
        help="For photographs with an EXIF rotation: whether boxes refer to the stored or the "
        "upright image, if the labels do not say.",
    ),
    _option("--keep-splits", is_flag=True, help="Keep the splits of the source."),
    _option("--licence", metavar="TEXT", help="Licence of the images: a URL or a name."),
    _option("--credit", metavar="TEXT", help="Whom to credit for the images."),
    _option(
        "--tolerance",
        type=_KeyType(KEYS_BY_NAME["tolerance"]),
        metavar="NUMBER",
        help="Share of images or boxes that may be skipped.  [default: [images] tolerance, 0.02]",
    ),
)
_add("prepare", "Orient and resize the images, and write their labels.", keys=("images",))
_add(
    "split",
    "Assign the images to train, valid and test, permanently.",
    _option("--reassign", is_flag=True, help="Discard all splits and assign them again."),
    _option(
        "--check",
        is_flag=True,
        help="Change nothing; check that no image, near-duplicate or author is in two splits.",
    ),
    keys=("split", "images"),
)
_add("build", "Find or build darknet, and verify that it trains.", keys=("darknet",))
_add(
    "train",
    "Train a network, or resume an interrupted run.",
    _option("--again", is_flag=True, help="Start a new run if the same one is finished."),
    _option(
        "--detach",
        is_flag=True,
        help="Train in the background; closing the terminal does not end it.",
    ),
    _option(
        "--attach",
        is_flag=True,
        help="Show the progress of a background run instead of training.",
    ),
    keys=("train", "darknet"),
)
_add(
    "plot",
    "Chart a run or any darknet log, or compare several.",
    click.Argument(["log"], nargs=-1, metavar="[RUN|LOG]..."),
    _run_option(),
    _option(
        "--follow", is_flag=True, help="Update the charts as the log grows, until the run ends."
    ),
    _number("--every-s", "With --follow: minimum seconds between two updates.  [default: 10]", "S"),
    _number(
        "--idle-s",
        "With --follow of a log outside a run: stop when it has not grown for this many seconds."
        "  [default: 300]",
        "S",
    ),
    _option("--tensorboard", metavar="DIR", help="Also write event files for TensorBoard to DIR."),
)
_add(
    "evaluate",
    "Score a run's detector on images that training never saw, or compare two runs.",
    click.Argument(["runs"], nargs=-1, metavar="[RUN]..."),
    _run_option(),
    _option(
        "--split",
        type=click.Choice(["test", "valid"]),
        default="test",
        show_default=True,
        help="The split to score on.",
    ),
    _option("--weights", metavar="FILE", help="Weights file to score instead of the run's best."),
    _option(
        "--with",
        "scorer",
        type=click.Choice(["onnxruntime", "darknet"]),
        default="onnxruntime",
        show_default=True,
        help="The program that runs the network; darknet's scores are checked with onnxruntime.",
    ),
    _option(
        "--all-checkpoints",
        is_flag=True,
        help="Score all saved weights on valid and a sample of train, and the best on test.",
    ),
    _option(
        "--baseline",
        is_flag=False,
        flag_value="yolo-fastest-xl",
        metavar="[NAME]",
        help="Also score a published detector that was not trained for this task: "
        "yolo-fastest-xl, yolov4-tiny or yolov3-openimages.  [without NAME: yolo-fastest-xl]",
    ),
    _option(
        "--baseline-model",
        metavar="FILE",
        help="Also score this ONNX model, which was not trained for this task.",
    ),
    keys=("darknet",),
)
_add(
    "report",
    "Write a report about a run, or one that compares two runs, in one HTML file.",
    click.Argument(["runs"], nargs=-1, metavar="[RUN]..."),
    _run_option(),
    _option(
        "--with-detector",
        is_flag=True,
        help="Include the page that `export web` wrote, to try the detector.",
    ),
    _option(
        "--follow", is_flag=True, help="Write the report again until the training of the run ends."
    ),
    _number("--every-s", "With --follow: seconds between two versions.  [default: 15]", "S"),
)
_add(
    "review",
    "List the labels that a run's detector contradicts, for you to decide.",
    _run_option(),
    _option(
        "--cross-fit",
        is_flag=True,
        help="Search train too: train on each half of it, and let each detector judge the other "
        "half.",
    ),
    _option(
        "--limit",
        type=int,
        default=500,
        show_default=True,
        metavar="N",
        help="Maximum number of suspected errors.",
    ),
    _option(
        "--serve", is_flag=True, help="Serve a page on this machine that saves your decisions."
    ),
    _option(
        "--port",
        type=int,
        default=0,
        metavar="N",
        help="With --serve: the port.  [default: a free one]",
    ),
)
_add(
    "predict",
    "Detect objects in photographs and videos, with a run's detector or any other.",
    click.Argument(["sources"], nargs=-1, metavar="SOURCE..."),
    *_detector_options(),
    _option("--model", metavar="FILE", help="Use this ONNX model instead of a run."),
    _option(
        "--format",
        "formats",
        multiple=True,
        default=["pictures"],
        metavar="FORMAT,...",
        help="Outputs to write: some of pictures, json, csv, yolo.  [default: pictures]",
    ),
    _option(
        "--out",
        metavar="DIR",
        help="Folder of the outputs.  [default: predictions/ in the project's folder]",
    ),
    _number("--threshold", "Lowest confidence to report.  [default: the detector's own, or 0.25]"),
    _number(
        "--nms",
        "Drop the less confident of two boxes of a class above this IoU."
        "  [default: the detector's own, or 0.45]",
    ),
    _option(
        "--fit",
        type=click.Choice(["letterbox", "stretch"]),
        help="How images are fitted to the network's input.  [default: what the detector says]",
    ),
    _option("--tile", is_flag=True, help="Look for small objects in overlapping tiles, too."),
    _option(
        "--batch",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Images that the network processes at once.  [default: chosen for the device]",
    ),
    _option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where the network runs.",
    ),
    _option(
        "--exif",
        type=click.Choice(["apply", "ignore"]),
        default="apply",
        show_default=True,
        help="Turn images upright, or leave them as they are stored.",
    ),
    _option(
        "--tolerance",
        type=_KeyType(KEYS_BY_NAME["tolerance"]),
        metavar="NUMBER",
        help="Share of the sources that may fail.  [default: [images] tolerance, 0.02]",
    ),
)
_export = click.Group(
    "export", help="Write the detector or the dataset for other programs.", no_args_is_help=False
)
commands.add_command(_export)
_add(
    "onnx",
    "Write the detector as an ONNX file, which runs without oiyolo and without darknet.",
    *_detector_options(),
    _option(
        "--layout",
        type=click.Choice(["darknet", "yolov8"]),
        default="darknet",
        show_default=True,
        help="Layout of the outputs: boxes and scores, or one output as in YOLOv8's models.",
    ),
    _option("--half", is_flag=True, help="Compute in float16; inputs and outputs stay float32."),
    _option(
        "--out",
        metavar="FILE",
        help="The file, or a folder for it.  [default: runs/<run>/export/<run>.onnx]",
    ),
    group=_export,
)
_add(
    "web",
    "Write the detector as one HTML file, which finds objects in photographs, offline.",
    *_detector_options(),
    _option("--model", metavar="FILE", help="A model that `export onnx` wrote, in place of a run."),
    _option("--half", is_flag=True, help="Store the weights in float16, in half the space."),
    _option(
        "--runtime",
        "runtime_path",
        metavar="PATH",
        help="Folder or archive of onnxruntime-web's npm package.  [default: download it once]",
    ),
    _option(
        "--out",
        metavar="FILE",
        help="The file, or a folder for it.  [default: runs/<run>/export/<run>.html]",
    ),
    group=_export,
)
for _format, _help_text in (
    ("coco", "Write the dataset in COCO's format."),
    ("voc", "Write the dataset in Pascal VOC's format."),
    ("yolo-yaml", "Write the dataset as ultralytics reads it, with data.yaml."),
    ("openimages", "Write the dataset in Open Images' own CSV formats."),
    ("fiftyone", "Write the dataset as FiftyOne loads it."),
    ("tfrecord", "Write the dataset as TFRecord files, for TensorFlow's Object Detection API."),
):
    _add(
        _format,
        _help_text,
        _option("--split", multiple=True, metavar="NAME", help="Only this split; may be repeated."),
        *_dataset_options(_format),
        group=_export,
    )
_add(
    "tfod",
    "Write a project for training with TensorFlow's Object Detection API.",
    _option(
        "--pipeline",
        metavar="PATH",
        help="Folder of a pretrained model that you downloaded, or its pipeline.config.",
    ),
    _option(
        "--checkpoint",
        metavar="PREFIX",
        help="The model's checkpoint: one of its files, or the prefix of their names."
        "  [default: the one in the model's folder]",
    ),
    _option(
        "--batch", type=click.IntRange(1), default=8, show_default=True, help="Images per step."
    ),
    _option("--steps", type=click.IntRange(1), help="Number of steps.  [default: the pipeline's]"),
    *_dataset_options("tfod"),
    group=_export,
)
_add(
    "run",
    "Run all stages in order, from class names to the report.",
    _option(
        "--until",
        type=click.Choice(
            ["select", "fetch", "prepare", "split", "train", "plot", "evaluate", "report"]
        ),
        help="The last stage to run.  [default: report]",
    ),
    _option(
        "--from",
        "frozen",
        metavar="FILE",
        help="Rebuild the dataset of a dataset.lock: the same images, each verified, and splits.",
    ),
    keys=SECTIONS,
)
_add(
    "freeze",
    "Write everything that decides the dataset to dataset.lock, for `oiyolo run --from`.",
    _option(
        "--out", metavar="FILE", help="The file.  [default: dataset.lock in the project's folder]"
    ),
)
_add(
    "refresh",
    "Update the dataset from cron: one line and an exit code.",
    _option(
        "--accept-loss",
        is_flag=True,
        help="Allow this refresh to drop more images than [refresh] max_loss.",
    ),
    _option(
        "--retrain",
        is_flag=True,
        help="Then train if the dataset changed, and publish the new detector if it is better.",
    ),
    _option("--print-cron", is_flag=True, help="Only print a line for cron that runs this."),
    _option("--print-systemd", is_flag=True, help="Only print units for systemd that run this."),
    keys=("refresh",),
)
_add(
    "push",
    "Copy the dataset, a split of it, or runs to a bucket; only what has changed.",
    click.Argument(["destination"], metavar="gs://BUCKET/PREFIX"),
    *_part_options(),
)
_add(
    "pull",
    "Copy what was pushed into this project, or into a new one.",
    click.Argument(["source"], metavar="gs://BUCKET/PREFIX"),
    *_part_options(),
)
_add("status", "Show how many images are in each state.", changes=False)
_add(
    "stop",
    "Stop a training run in progress, and print the command that resumes it.",
    _option("--run", metavar="NAME", help="Name of the run.  [default: the one in training]"),
)
_add(
    "withdraw",
    "Remove images for good: files, dataset and splits; they are never fetched again.",
    click.Argument(["image_ids"], nargs=-1, metavar="[ID]..."),
    _option("--why", default="", metavar="TEXT", help="The reason, which is recorded."),
    _option("--file", metavar="FILE", help="Also those in FILE, one a line; - for stdin."),
    _option("--undo", is_flag=True, help="Allow these images again instead."),
)
_add("why", "Show the full history of one image.", click.Argument(["image_id"]), changes=False)
_add(
    "doctor",
    "Check whether this machine can train, and say how to fix what is missing.",
    _option("--offline", is_flag=True, help="Skip the checks that need network access."),
    keys=SECTIONS,
    changes=False,
)
_add(
    "notebooks",
    "Copy the notebooks to a folder; they need `pip install 'oiyolo[notebook]'`.",
    click.Argument(["folder"], default="."),
    _option("--force", is_flag=True, help="Replace notebooks that you have run or edited."),
    has_project=False,
)
_add(
    "demo",
    "Train a boat detector on drawn scenes, offline, in minutes.",
    click.Argument(["folder"], default="oiyolo-demo"),
    _option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Seed of the drawn scenes.",
    ),
    _option(
        "--scenes",
        type=click.IntRange(20, 100_000),
        default=760,
        show_default=True,
        help="Number of drawn scenes.",
    ),
    _option(
        "--serve",
        is_flag=True,
        help="Only serve the scenes until Ctrl-C, for a project in FOLDER that reads them.",
    ),
    keys=("train", "darknet"),
    has_project=False,
)
