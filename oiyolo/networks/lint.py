"""What would go wrong in a training, found in a network's file before it starts.

Darknet takes a wrong file without a word, or dies of it in the middle of the layer table; the
places in its sources are named where a rule stands on one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from oiyolo.core.errors import InputFormError
from oiyolo.networks.cfg import CfgError
from oiyolo.networks.layers import HEAD_KINDS, head_channels, layers, mask_of
from oiyolo.networks.vocabulary import (
    ACTIVATIONS,
    ACTIVATIONS_ADDED,
    ALEXEYAB_KEYS,
    KINDS_ADDED,
    PJREDDIE_KEYS,
    POLICIES,
    POLICIES_ADDED,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.networks.cfg import Cfg, Section

DarknetLine = Literal["pjreddie", "alexeyab", "hank"]
"""A line of descent of darknet; Debian's package is of pjreddie's."""

GRID_PX = 32
"""The networks halve the picture five times, so its sides are multiples of this."""

MULTI_SCALE_MIN_PX = 320
MULTI_SCALE_MAX_PX = 608
"""With ``random=1``, pjreddie's line trains at squares from and to these (examples/detector.c:65),
whatever width and height say."""

_BURN_IN_SHARE = 0.2


@dataclass(frozen=True)
class Finding:
    """Something in a network's file that is wrong or doubtful.

    Attributes:
        level: ``error``: a training would fail or learn nothing useful. ``warning``: it would not
            be what the file seems to say.
        line: The line in the file.
        what: What is wrong, with the values. A sentence without its full stop.
        remedy: What to do. A sentence without its full stop, or empty.
    """

    level: Literal["error", "warning"]
    line: int
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        advice = f" ({self.remedy})" if self.remedy else ""
        return f"line {self.line}: {self.what}{advice}"


def lint(cfg: Cfg, *, class_count: int, line: DarknetLine | None = None) -> list[Finding]:
    """Judge a network's file.

    Args:
        cfg: The network.
        class_count: Classes of the dataset.
        line: The line of darknet that will train it; without it, what only some lines mind is
            left out.

    Returns:
        The findings in the order of the file.
    """
    # A set, because several rules may stumble over the same value.
    found = {finding for rule in _RULES for finding in _kept(rule(cfg, class_count, line))}
    return sorted(found, key=lambda finding: (finding.line, finding.level, finding.what))


def check(cfg: Cfg, *, class_count: int, line: DarknetLine | None = None) -> list[Finding]:
    """Refuse a network's file that has errors.

    Args:
        cfg: The network.
        class_count: Classes of the dataset.
        line: As ``lint``.

    Returns:
        The warnings that are left.

    Raises:
        InputFormError: There are errors; it lists them all.
    """
    findings = lint(cfg, class_count=class_count, line=line)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        raise InputFormError(
            "this network cannot be trained on this dataset",
            where=cfg.path,
            found="; ".join(map(str, errors)),
            remedy="Correct these lines, or let `oiyolo train` adapt the file",
        )
    return findings


def _kept(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Make a finding of the error that ends a rule: a value that is no number, a broken route."""
    try:
        yield from findings
    except CfgError as error:
        parts = [error.what]
        parts += [f"expected {error.expected}"] if error.expected else []
        parts += [f"found {error.found}"] if error.found else []
        yield Finding("error", error.line, ", ".join(parts), error.remedy)


def _size(cfg: Cfg, _: int, line: DarknetLine | None) -> Iterator[Finding]:
    for key in ("width", "height"):
        side = cfg.net.integer(key, 0)
        if side < 1 or side % GRID_PX:
            near = max(GRID_PX, round(side / GRID_PX) * GRID_PX)
            yield Finding(
                "error",
                cfg.net.line_of(key),
                f"{key}={side} is no multiple of {GRID_PX}",
                f"Set {key}={near}",
            )
    heads = _heads(cfg)
    if line == "pjreddie" and heads and heads[-1].number("random", 0):
        width, height = cfg.size_wh
        if width != height or not MULTI_SCALE_MIN_PX <= width <= MULTI_SCALE_MAX_PX:
            yield Finding(
                "warning",
                heads[-1].line_of("random"),
                f"random=1 trains at squares from {MULTI_SCALE_MIN_PX} to {MULTI_SCALE_MAX_PX} "
                f"pixels, not at {width}x{height}",
                "Set random=0",
            )


def _batch(cfg: Cfg, _: int, __: DarknetLine | None) -> Iterator[Finding]:
    net = cfg.net
    batch, parts = net.integer("batch", 1), net.integer("subdivisions", 1)
    if batch <= 1:
        yield Finding(
            "error",
            net.line_of("batch"),
            f"batch={batch} is for testing",
            "Set batch=64 and subdivisions=16",
        )
    elif parts < 1 or batch % parts:
        # parse_net_options divides and drops the rest: fewer images, or none, an iteration.
        yield Finding(
            "error",
            net.line_of("subdivisions"),
            f"subdivisions={parts} does not divide batch={batch}",
            "Set subdivisions to a divisor of batch",
        )


def _rate(cfg: Cfg, _: int, line: DarknetLine | None) -> Iterator[Finding]:
    net = cfg.net
    rate = net.number("learning_rate", 0.001)
    if rate <= 0:
        yield Finding(
            "error",
            net.line_of("learning_rate"),
            f"learning_rate={rate:g} learns nothing",
            "Set learning_rate=0.001",
        )
    policy = net.text("policy", "constant")
    if policy not in (POLICIES if line == "pjreddie" else POLICIES | POLICIES_ADDED):
        # get_policy goes on with a constant rate, in one line among hundreds.
        yield Finding(
            "error", net.line_of("policy"), f"there is no policy {policy}", "Set policy=steps"
        )
    elif policy not in {"steps", "sgdr"} and net.has("steps"):
        yield Finding(
            "warning",
            net.line_of("steps"),
            f"steps are not looked at with policy={policy}",
            "Set policy=steps",
        )


def _schedule(cfg: Cfg, _: int, __: DarknetLine | None) -> Iterator[Finding]:
    net = cfg.net
    end = net.integer("max_batches", 0)
    if end < 1:
        yield Finding(
            "error",
            net.line_of("max_batches"),
            f"max_batches={end} trains nothing",
            "Set max_batches to 2000 for each class, and 6000 at least",
        )
        return
    burn_in = net.integer("burn_in", 0)
    if burn_in > _BURN_IN_SHARE * end:
        # The rate climbs with the fourth power of the iteration until then.
        yield Finding(
            "error" if burn_in >= end else "warning",
            net.line_of("burn_in"),
            f"burn_in={burn_in} takes up most of max_batches={end}"
            if burn_in >= end
            else f"burn_in={burn_in} is a large part of max_batches={end}",
            f"Set burn_in={min(1000, end // 10)}",
        )
    if net.text("policy", "constant") == "steps":
        yield from _steps(net, end)


def _steps(net: Section, end: int) -> Iterator[Finding]:
    steps, scales = net.integers("steps"), net.numbers("scales")
    if not steps or len(scales) < len(steps):
        # parse_net_options reads on behind the end of a list that is too short.
        yield Finding(
            "error",
            net.line_of("scales" if steps else "steps"),
            f"policy=steps with {len(steps)} steps and {len(scales)} scales",
            "Give one scale for each step",
        )
    elif len(scales) > len(steps):
        yield Finding(
            "warning",
            net.line_of("scales"),
            f"{len(scales)} scales for {len(steps)} steps: the last ones are not used",
        )
    if steps != sorted(steps):
        yield Finding(
            "error", net.line_of("steps"), "steps do not rise", "Give them in the order of time"
        )
    if any(step >= end for step in steps):
        late = ", ".join(str(step) for step in steps if step >= end)
        yield Finding(
            "warning",
            net.line_of("steps"),
            f"steps at or after the end are never reached: {late} of max_batches={end}",
            f"Set steps={int(end * 0.8)},{int(end * 0.9)}",
        )


def _head_rules(cfg: Cfg, class_count: int, _: DarknetLine | None) -> Iterator[Finding]:
    if not _heads(cfg):
        yield Finding(
            "error",
            cfg.net.line,
            "no [yolo] section: this network finds no boxes",
            "Take the .cfg of a detector, not of a classifier",
        )
    for before, head in zip([cfg.net, *cfg.layers], cfg.layers, strict=False):
        if head.kind in HEAD_KINDS:
            yield from _classes(head, class_count)
            yield from _filters(before, head)
            if head.kind != "region":
                yield from _anchors(head)


def _heads_together(cfg: Cfg, _: int, __: DarknetLine | None) -> Iterator[Finding]:
    """Judge what heads share: one list of anchors, the larger ones for the coarser cells."""
    heads = [layer for layer in layers(cfg) if layer.kind in {"yolo", "Gaussian_yolo"}]
    used = [_used_anchors(layer.section) for layer in heads]
    for layer in heads[1:]:
        if layer.section.numbers("anchors") != heads[0].section.numbers("anchors"):
            yield Finding(
                "warning",
                layer.section.line_of("anchors"),
                f"other anchors than those of the head in line {heads[0].section.line}",
                "List the same in every head, and let mask choose from them",
            )
    for fine, fine_areas in zip(heads, used, strict=True):
        for coarse, coarse_areas in zip(heads, used, strict=True):
            is_coarser = coarse.output_whc[0] < fine.output_whc[0]
            if is_coarser and coarse_areas and fine_areas and max(coarse_areas) < min(fine_areas):
                yield Finding(
                    "warning",
                    coarse.section.line_of("mask"),
                    f"cells of {coarse.output_whc[0]}x{coarse.output_whc[1]} have smaller anchors "
                    f"than those of {fine.output_whc[0]}x{fine.output_whc[1]} in line "
                    f"{fine.section.line}",
                    "Order the anchors by area, and give the coarser cells the last ones",
                )


def _used_anchors(head: Section) -> list[float]:
    """Give the areas of the anchors that a head uses, as far as there are any."""
    numbers = head.numbers("anchors")
    areas = [w * h for w, h in zip(numbers[::2], numbers[1::2], strict=False)]
    return [areas[index] for index in mask_of(head) if 0 <= index < len(areas)]


def _classes(head: Section, class_count: int) -> Iterator[Finding]:
    classes = head.integer("classes", 20)
    if classes != class_count:
        yield Finding(
            "error",
            head.line_of("classes"),
            f"classes={classes}, but the dataset has {class_count}",
            f"Set classes={class_count}",
        )


def _filters(before: Section, head: Section) -> Iterator[Finding]:
    needed = head_channels(head)
    if before.kind != "convolutional":
        yield Finding(
            "error", head.line, f"[{head.kind}] stands behind [{before.kind}], not a convolution"
        )
        return
    filters = before.integer("filters", 1)
    if filters != needed:
        # An assertion in parse_yolo, met after minutes of reading the layers before.
        yield Finding(
            "error",
            before.line_of("filters"),
            f"filters={filters} before a [{head.kind}] with {head.integer('classes', 20)} classes "
            f"and {len(mask_of(head))} anchors",
            f"Set filters={needed}",
        )
    activation = before.text("activation", "logistic")
    # AlexeyAB's heads with new_coords want numbers from 0 to 1.
    if activation != ("logistic" if head.integer("new_coords", 0) else "linear"):
        yield Finding(
            "warning",
            before.line_of("activation"),
            f"activation={activation} before [{head.kind}]",
            "Set activation=linear",
        )


def _anchors(head: Section) -> Iterator[Finding]:
    count, mask, numbers = head.integer("num", 1), mask_of(head), head.numbers("anchors")
    if len(numbers) != 2 * count:
        # pjreddie's parse_yolo writes behind the end of its memory when there are more.
        yield Finding(
            "error",
            head.line_of("anchors"),
            f"{len(numbers)} numbers in anchors for num={count}",
            f"Give {2 * count} numbers, or set num={len(numbers) // 2}",
        )
    if any(number <= 0 for number in numbers):
        yield Finding("error", head.line_of("anchors"), "an anchor without an extent")
    areas = [w * h for w, h in zip(numbers[::2], numbers[1::2], strict=False)]
    if areas != sorted(areas):
        yield Finding(
            "warning",
            head.line_of("anchors"),
            "anchors are not in the order of their areas, which masks count on",
            "List the smallest first",
        )
    twice = sorted({index for index in mask if mask.count(index) > 1})
    if twice:
        yield Finding(
            "error",
            head.line_of("mask"),
            f"mask names anchor {', '.join(map(str, twice))} more than once",
            "Name each once",
        )
    outside = [str(index) for index in mask if not 0 <= index < count]
    if outside:
        yield Finding(
            "error",
            head.line_of("mask"),
            f"mask names anchor {', '.join(outside)} of {count}",
            f"Use indices from 0 to {count - 1}",
        )


def _shapes(cfg: Cfg, _: int, line: DarknetLine | None) -> Iterator[Finding]:
    made = layers(cfg)
    for layer in made:
        sizes = {made[source].output_whc[:2] for source in layer.sources}
        # AlexeyAB's asserts this; pjreddie's adds what there is of the smaller one.
        if layer.kind == "shortcut" and line != "pjreddie" and sizes != {layer.input_whc[:2]}:
            yield Finding(
                "error" if line else "warning",
                layer.section.line,
                f"[shortcut] adds layers of different sizes in layer {layer.index}",
            )


def _repeats(cfg: Cfg, _: int, __: DarknetLine | None) -> Iterator[Finding]:
    for section in cfg.sections:
        keys = section.given_keys()
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            yield Finding(
                "warning",
                section.line_of(key),
                f"{key} is given {keys.count(key)} times in one [{section.kind}]: "
                "darknet takes the first",
                "Keep one",
            )


def _known(cfg: Cfg, _: int, line: DarknetLine | None) -> Iterator[Finding]:
    if line is None:
        return
    activations = ACTIVATIONS | (set() if line == "pjreddie" else ACTIVATIONS_ADDED)
    for section in cfg.sections:
        if line == "pjreddie" and section.kind in KINDS_ADDED:
            yield Finding(
                "error",
                section.line,
                f"pjreddie's darknet has no [{section.kind}]",
                "Train with AlexeyAB's or hank-ai's",
            )
            continue
        activation = section.text("activation", "linear")
        if activation not in activations:
            # get_activation goes on with ReLU, in one line among hundreds.
            yield Finding(
                "error",
                section.line_of("activation"),
                f"{line}'s darknet has no activation {activation}",
                "Train with AlexeyAB's or hank-ai's" if activation in ACTIVATIONS_ADDED else "",
            )
        yield from _known_keys(section, line)


def _known_keys(section: Section, line: DarknetLine) -> Iterator[Finding]:
    tables = PJREDDIE_KEYS if line == "pjreddie" else ALEXEYAB_KEYS
    if section.kind not in tables:
        return
    known = tables[""] | tables[section.kind]
    for key in section.given_keys():
        # A part of the channels taken for the whole makes another network; the rest only
        # changes how this one is trained.
        splits = section.kind == "route" and key == "groups" and line == "pjreddie"
        if key not in known:
            yield Finding(
                "error" if splits else "warning",
                section.line_of(key),
                f"{line}'s darknet does not know {key} in [{section.kind}]",
                "Train with AlexeyAB's or hank-ai's" if splits else "",
            )
        if key == "mosaic" and key in known and section.integer(key, 0):
            # load_data_detection in AlexeyAB's src/data.c ends the process without it.
            yield Finding(
                "warning",
                section.line_of(key),
                "mosaic=1 needs a darknet built with OpenCV",
                "Set mosaic=0 for one without",
            )


def _heads(cfg: Cfg) -> list[Section]:
    return [section for section in cfg.layers if section.kind in HEAD_KINDS]


_RULES: tuple[Callable[[Cfg, int, DarknetLine | None], Iterator[Finding]], ...] = (
    _size,
    _batch,
    _rate,
    _schedule,
    _head_rules,
    _heads_together,
    _shapes,
    _repeats,
    _known,
)
