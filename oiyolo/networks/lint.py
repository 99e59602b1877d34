"""Linter for network files: finds mistakes in them before a training run starts.

Darknet accepts many invalid files silently, and aborts on others in the middle of the layer table.
Where a rule follows from darknet's source code, a comment says where. ``check_own`` precedes every
computation with a user's file; ``check`` is for the network that will be trained.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from oiyolo.core.errors import InputFormError
from oiyolo.core.results import pluralize
from oiyolo.networks.cfg import CfgError
from oiyolo.networks.layers import (
    UNMEASURED_KINDS,
    head_channels,
    heads_of,
    heads_with_previous,
    layers,
    mask_of,
    size_multiple,
)
from oiyolo.networks.vocabulary import (
    ACTIVATIONS,
    ALEXEYAB_ACTIVATIONS,
    ALEXEYAB_KEYS,
    ALEXEYAB_KINDS,
    ALEXEYAB_POLICIES,
    PJREDDIE_KEYS,
    POLICIES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from oiyolo.networks.cfg import Cfg, Section

ForkName = Literal["pjreddie", "alexeyab", "hank"]
"""A fork of darknet; Debian packages pjreddie's."""

MULTI_SCALE_MIN_PX = 320
MULTI_SCALE_MAX_PX = 608
"""With ``random``, pjreddie's fork trains at squares between these sides, whatever width and height
are (examples/detector.c:65)."""

_BURN_IN_SHARE = 0.2
_MAX_SHOWN_ERRORS = 5
_OTHER_DARKNET = "Set [darknet] executable to AlexeyAB's or hank-ai's darknet"


@dataclass(frozen=True)
class LintFinding:
    """A problem in a network file.

    Attributes:
        level: ``error`` if training would fail or learn nothing useful, ``warning`` if it would
            not do what the file suggests.
        line: Line number in the file, from 1.
        what: What is wrong, with the values. A sentence without its full stop.
        remedy: What to do about it. A sentence without its full stop, or empty.
    """

    level: Literal["error", "warning"]
    line: int
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


def lint(cfg: Cfg, *, class_count: int, fork: ForkName | None = None) -> list[LintFinding]:
    """Check a network file.

    Args:
        cfg: The network.
        class_count: Number of classes in the dataset.
        fork: Fork of darknet that will train it; ``None`` skips the rules for single forks.

    Returns:
        The findings in the order of the file.
    """
    return _apply((*_RULES, _check_opencv), cfg, class_count, fork)


def check(
    cfg: Cfg, *, class_count: int, fork: ForkName | None = None, is_darknet: bool = True
) -> list[LintFinding]:
    """Raise if a network file has errors.

    Args:
        cfg: The network.
        class_count: Number of classes in the dataset.
        fork: Fork of darknet that will train it, as for ``lint``.
        is_darknet: Whether that fork's own program will, rather than one that follows its rules.

    Returns:
        The warnings.

    Raises:
        InputFormError: The file has errors; the message lists the first ones.
    """
    rules = (*_RULES, _check_opencv) if is_darknet else _RULES
    return _raise_errors(cfg, _apply(rules, cfg, class_count, fork))


def check_own(cfg: Cfg) -> list[LintFinding]:
    """Raise if a user's file has errors in what its adaptation to a dataset keeps or starts from.

    Classes, filters of heads, sizes and the schedule are not checked, because they are replaced.

    Args:
        cfg: The user's file.

    Returns:
        The warnings.

    Raises:
        InputFormError: The file has errors; the message lists the first ones.
    """
    return _raise_errors(cfg, _apply(_OWN_RULES, cfg, 0, None))


def nearest_multiple(side_px: int, multiple: int) -> int:
    """Return the multiple of a number of pixels that is nearest to a side, but above 0."""
    return max(1, round(side_px / multiple)) * multiple


def allows_multi_scale(size_wh: tuple[int, int]) -> bool:
    """Return whether every fork trains at sizes around this one with ``random``."""
    width, height = size_wh
    return width == height and MULTI_SCALE_MIN_PX <= width <= MULTI_SCALE_MAX_PX


def _apply(
    rules: Sequence[_Rule], cfg: Cfg, class_count: int, fork: ForkName | None
) -> list[LintFinding]:
    # A set, because several rules may report the same value.
    findings = {finding for rule in rules for finding in _collect(rule(cfg, class_count, fork))}
    return sorted(findings, key=lambda finding: (finding.line, finding.level, finding.what))


def _raise_errors(cfg: Cfg, findings: list[LintFinding]) -> list[LintFinding]:
    """Return the findings if they are only warnings."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        more = len(errors) - _MAX_SHOWN_ERRORS
        raise InputFormError(
            "this network cannot be trained",
            where=cfg.path,
            found="; ".join(map(str, errors[:_MAX_SHOWN_ERRORS]))
            + (f"; and {more} more" if more > 0 else ""),
            remedy="Correct this line" if len(errors) == 1 else "Correct these lines",
        )
    return findings


def _collect(findings: Iterator[LintFinding]) -> Iterator[LintFinding]:
    """Yield findings, and the error that aborts a rule (an invalid route, say) as a finding."""
    try:
        yield from findings
    except CfgError as error:
        parts = [error.what]
        parts += [f"expected {error.expected}"] if error.expected else []
        parts += [f"found {error.found}"] if error.found else []
        yield LintFinding("error", error.line, ", ".join(parts), error.remedy)


def _check_size(cfg: Cfg, _: int, fork: ForkName | None) -> Iterator[LintFinding]:
    multiple = size_multiple(cfg)
    for key in ("width", "height"):
        side = cfg.net.integer(key, 0)
        if side < 1 or side % multiple:
            yield LintFinding(
                "error",
                cfg.net.line_of(key),
                f"{key}={side} is not a multiple of {multiple}",
                f"Set {key}={nearest_multiple(side, multiple)}",
            )
    heads = heads_of(cfg)
    if fork == "pjreddie" and heads and heads[-1].number("random", 0):
        width, height = cfg.size_wh
        if not allows_multi_scale(cfg.size_wh):
            yield LintFinding(
                "warning",
                heads[-1].line_of("random"),
                f"random=1 trains at square sizes from {MULTI_SCALE_MIN_PX} to "
                f"{MULTI_SCALE_MAX_PX} pixels, not at {width}x{height}",
                "Set random=0",
            )


def _check_batch(cfg: Cfg, _: int, __: ForkName | None) -> Iterator[LintFinding]:
    net = cfg.net
    batch, subdivisions = net.integer("batch", 1), net.integer("subdivisions", 1)
    if batch <= 1:
        yield LintFinding(
            "error",
            net.line_of("batch"),
            f"batch={batch} is a setting for testing",
            "Set batch=64 and subdivisions=16",
        )
    elif subdivisions < 1 or batch % subdivisions:
        # parse_net_options drops the remainder: an iteration would have fewer images, or none.
        yield LintFinding(
            "error",
            net.line_of("subdivisions"),
            f"subdivisions={subdivisions} does not divide batch={batch}",
            "Set subdivisions to a divisor of batch",
        )


def _check_learning_rate(cfg: Cfg, _: int, fork: ForkName | None) -> Iterator[LintFinding]:
    net = cfg.net
    rate = net.number("learning_rate", 0.001)
    if rate <= 0:
        yield LintFinding(
            "error",
            net.line_of("learning_rate"),
            f"a network cannot learn with learning_rate={rate:g}",
            "Set learning_rate=0.001",
        )
    policy = net.text("policy", "constant")
    if policy not in (POLICIES if fork == "pjreddie" else POLICIES | ALEXEYAB_POLICIES):
        # get_policy falls back to a constant rate, and says so in one line among hundreds.
        yield LintFinding(
            "error", net.line_of("policy"), f"unknown policy {policy}", "Set policy=steps"
        )
    elif policy not in {"steps", "sgdr"} and net.has("steps"):
        yield LintFinding(
            "warning",
            net.line_of("steps"),
            f"steps has no effect with policy={policy}",
            "Set policy=steps",
        )


def _check_schedule(cfg: Cfg, _: int, __: ForkName | None) -> Iterator[LintFinding]:
    net = cfg.net
    end = net.integer("max_batches", 0)
    if end < 1:
        yield LintFinding(
            "error",
            net.line_of("max_batches"),
            f"max_batches={end} means no training",
            "Set max_batches to 2000 per class, but at least 6000",
        )
        return
    burn_in = net.integer("burn_in", 0)
    if burn_in > _BURN_IN_SHARE * end:
        # Until then the rate rises with the fourth power of the iteration.
        yield LintFinding(
            "error" if burn_in >= end else "warning",
            net.line_of("burn_in"),
            f"burn_in={burn_in} covers all of max_batches={end}"
            if burn_in >= end
            else f"burn_in={burn_in} is a large part of max_batches={end}",
            f"Set burn_in={min(1000, end // 10)}",
        )
    if net.text("policy", "constant") == "steps":
        yield from _check_steps(net, end)


def _check_steps(net: Section, end: int) -> Iterator[LintFinding]:
    steps, scales = net.integers("steps"), net.numbers("scales")
    if not steps or len(scales) < len(steps):
        # parse_net_options reads past the end of a list that is too short.
        yield LintFinding(
            "error",
            net.line_of("scales" if steps else "steps"),
            f"policy=steps with {len(steps)} steps and {len(scales)} scales",
            "Set one scale per step",
        )
    elif len(scales) > len(steps):
        yield LintFinding(
            "warning",
            net.line_of("scales"),
            f"{len(scales)} scales for {len(steps)} steps: the last ones are ignored",
        )
    if steps != sorted(steps):
        yield LintFinding(
            "error", net.line_of("steps"), "steps are not ascending", "Sort the steps"
        )
    if any(step >= end for step in steps):
        late = ", ".join(str(step) for step in steps if step >= end)
        yield LintFinding(
            "warning",
            net.line_of("steps"),
            f"steps {late} are never reached with max_batches={end}",
            f"Set steps={int(end * 0.8)},{int(end * 0.9)}",
        )


def _check_heads(cfg: Cfg, class_count: int, _: ForkName | None) -> Iterator[LintFinding]:
    if not heads_of(cfg):
        yield LintFinding(
            "error",
            cfg.net.line,
            "no [yolo] section: this network does not detect boxes",
            "Use the .cfg of a detector, not of a classifier",
        )
    for before, head in heads_with_previous(cfg):
        classes = head.integer("classes", 20)
        if classes != class_count:
            yield LintFinding(
                "error",
                head.line_of("classes"),
                f"classes={classes}, but the dataset has {class_count}",
                f"Set classes={class_count}",
            )
        yield from _check_filters(before, head)


def _check_all_anchors(cfg: Cfg, _: int, __: ForkName | None) -> Iterator[LintFinding]:
    for head in heads_of(cfg):
        yield from _collect(_check_anchors(head))
        yield from _collect(_check_mask(head))


def _check_varying_size(cfg: Cfg, _: int, __: ForkName | None) -> Iterator[LintFinding]:
    """Check the options from which the sizes of multi-scale training are computed."""
    options = [(head, "random", 0, "Set random=0 or random=1") for head in heads_of(cfg)]
    for section, key, low, remedy in [*options, (cfg.net, "resize_step", 1, "Set resize_step=32")]:
        value = section.number(key, low)
        if value < low:
            yield LintFinding("error", section.line_of(key), f"invalid {key}={value:g}", remedy)


def _check_copied_filters(cfg: Cfg, _: int, __: ForkName | None) -> Iterator[LintFinding]:
    """Check that the filters of a head were not set in the other convolutions, too."""
    convolutions = [layer for layer in cfg.layers if layer.kind == "convolutional"]
    filters = {section.integer("filters", 1) for section in convolutions}
    if len(filters) == 1 and len(convolutions) > len(heads_of(cfg)) + 1:
        yield LintFinding(
            "warning",
            convolutions[0].line_of("filters"),
            f"every convolution has the head's {filters.pop()} filters",
            "Restore the filters of the convolutions that do not precede a head",
        )


def _check_unmeasured(cfg: Cfg, _: int, __: ForkName | None) -> Iterator[LintFinding]:
    for section in cfg.layers:
        if section.kind in UNMEASURED_KINDS:
            yield LintFinding(
                "warning",
                section.line,
                f"[{section.kind}] cannot be measured: estimates of memory are too low",
                "If memory runs out, set [train] subdivisions",
            )


def _check_shared_anchors(cfg: Cfg, _: int, __: ForkName | None) -> Iterator[LintFinding]:
    """Check that heads share one list of anchors, and that coarser heads use the larger ones."""
    heads = [layer for layer in layers(cfg) if layer.kind in {"yolo", "Gaussian_yolo"}]
    areas = []
    for layer in heads:
        listed = _anchor_areas(layer.section)
        areas.append([listed[i] for i in mask_of(layer.section) if 0 <= i < len(listed)])
    for layer in heads[1:]:
        if layer.section.numbers("anchors") != heads[0].section.numbers("anchors"):
            yield LintFinding(
                "warning",
                layer.section.line_of("anchors"),
                f"anchors differ from those of the head on line {heads[0].section.line}",
                "List the same anchors in every head, and select from them with mask",
            )
    for fine, fine_areas in zip(heads, areas, strict=True):
        for coarse, coarse_areas in zip(heads, areas, strict=True):
            is_coarser = coarse.output_whc[0] < fine.output_whc[0]
            if is_coarser and coarse_areas and fine_areas and max(coarse_areas) < min(fine_areas):
                yield LintFinding(
                    "warning",
                    coarse.section.line_of("mask"),
                    f"the {coarse.output_whc[0]}x{coarse.output_whc[1]} grid has smaller anchors "
                    f"than the {fine.output_whc[0]}x{fine.output_whc[1]} grid on line "
                    f"{fine.section.line}",
                    "Sort the anchors by area, and assign the last ones to the coarser grid",
                )


def _anchor_areas(head: Section) -> list[float]:
    numbers = head.numbers("anchors")
    return [w * h for w, h in zip(numbers[::2], numbers[1::2], strict=False)]


def _check_filters(before: Section, head: Section) -> Iterator[LintFinding]:
    expected = head_channels(head)
    if before.kind != "convolutional":
        yield LintFinding(
            "error", head.line, f"[{head.kind}] follows [{before.kind}], not a convolution"
        )
        return
    filters = before.integer("filters", 1)
    if filters != expected:
        # An assertion in parse_yolo, which darknet reaches only after parsing the layers before.
        yield LintFinding(
            "error",
            before.line_of("filters"),
            f"filters={filters} before a [{head.kind}] with "
            f"{pluralize(head.integer('classes', 20), 'class')} and "
            f"{pluralize(len(mask_of(head)), 'anchor')}",
            f"Set filters={expected}",
        )
    activation = before.text("activation", "logistic")
    # AlexeyAB's heads with new_coords expect values from 0 to 1.
    expected_activation = "logistic" if head.integer("new_coords", 0) else "linear"
    if activation != expected_activation:
        yield LintFinding(
            "warning",
            before.line_of("activation"),
            f"activation={activation} before [{head.kind}], which expects {expected_activation}",
            f"Set activation={expected_activation}",
        )


def _check_anchors(head: Section) -> Iterator[LintFinding]:
    count, numbers = head.integer("num", 1), head.numbers("anchors")
    if count < 1:
        yield LintFinding("error", head.line_of("num"), f"num={count}: [{head.kind}] has no anchor")
    elif numbers and len(numbers) != 2 * count:
        # pjreddie's parse_yolo overruns its buffer when there are more.
        pairs = len(numbers) // 2
        yield LintFinding(
            "error",
            head.line_of("anchors"),
            f"num={count}, but anchors lists {len(numbers)} numbers",
            f"List {2 * count} numbers"
            + (" separated by commas" if len(numbers) % 2 else f", or set num={pairs}"),
        )
    if any(number <= 0 for number in numbers):
        yield LintFinding("error", head.line_of("anchors"), "an anchor has no area")
    # Half a cell is the default in [region] (make_region_layer).
    if not numbers and head.kind != "region":
        yield LintFinding(
            "error",
            head.line,
            f"[{head.kind}] has no anchors",
            f"Add anchors= with {2 * count} numbers: width and height in pixels of each of the "
            f"num={count} anchors",
        )
    areas = _anchor_areas(head)
    if areas != sorted(areas) and head.kind != "region":
        yield LintFinding(
            "warning",
            head.line_of("anchors"),
            "anchors are not sorted by area, as masks assume",
            "List the smallest first",
        )


def _check_mask(head: Section) -> Iterator[LintFinding]:
    count, mask = head.integer("num", 1), mask_of(head)
    repeated = sorted({index for index in mask if mask.count(index) > 1})
    if repeated:
        yield LintFinding(
            "error",
            head.line_of("mask"),
            f"mask lists anchor {', '.join(map(str, repeated))} more than once",
            "List each anchor once",
        )
    outside = [str(index) for index in mask if not 0 <= index < count]
    if outside:
        yield LintFinding(
            "error",
            head.line_of("mask"),
            f"mask lists anchor {', '.join(outside)}, but num={count}",
            f"Use indices from 0 to {count - 1}",
        )


def _check_shortcuts(cfg: Cfg, _: int, fork: ForkName | None) -> Iterator[LintFinding]:
    network_layers = layers(cfg)
    for layer in network_layers:
        sizes = {network_layers[source].output_whc[:2] for source in layer.sources}
        # AlexeyAB's asserts equal sizes; pjreddie's adds the part that overlaps.
        if layer.kind == "shortcut" and fork != "pjreddie" and sizes != {layer.input_whc[:2]}:
            yield LintFinding(
                "error" if fork else "warning",
                layer.section.line,
                f"[shortcut] adds layers of different sizes in layer {layer.index}",
            )


def _check_repeated_keys(cfg: Cfg, _: int, __: ForkName | None) -> Iterator[LintFinding]:
    for section in cfg.sections:
        keys = section.option_keys()
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            yield LintFinding(
                "warning",
                section.line_of(key),
                f"{key} is set {keys.count(key)} times in one [{section.kind}]: "
                "darknet uses the first",
                "Keep one",
            )


def _check_vocabulary(cfg: Cfg, _: int, fork: ForkName | None) -> Iterator[LintFinding]:
    if fork is None:
        return
    activations = ACTIVATIONS | (set() if fork == "pjreddie" else ALEXEYAB_ACTIVATIONS)
    for section in cfg.sections:
        if fork == "pjreddie" and section.kind in ALEXEYAB_KINDS:
            yield LintFinding(
                "error",
                section.line,
                f"pjreddie's darknet has no [{section.kind}]",
                _OTHER_DARKNET,
            )
            continue
        activation = section.text("activation", "linear")
        if activation not in activations:
            # get_activation falls back to ReLU, and says so in one line among hundreds.
            yield LintFinding(
                "error",
                section.line_of("activation"),
                f"{fork}'s darknet has no activation {activation}",
                _OTHER_DARKNET if activation in ALEXEYAB_ACTIVATIONS else "",
            )
        yield from _check_option_names(section, fork)


def _check_option_names(section: Section, fork: ForkName) -> Iterator[LintFinding]:
    tables = PJREDDIE_KEYS if fork == "pjreddie" else ALEXEYAB_KEYS
    if section.kind not in tables:
        return
    supported = tables[""] | tables[section.kind]
    for key in section.option_keys():
        # Without groups a route passes on all channels, which is another network. Other unknown
        # options only change how the network is trained.
        changes_network = section.kind == "route" and key == "groups" and fork == "pjreddie"
        if key not in supported:
            yield LintFinding(
                "error" if changes_network else "warning",
                section.line_of(key),
                f"{fork}'s darknet ignores the unknown option {key} in [{section.kind}]",
                _OTHER_DARKNET if changes_network else _suggestion(key, supported),
            )


def _check_opencv(cfg: Cfg, _: int, fork: ForkName | None) -> Iterator[LintFinding]:
    if fork not in {None, "pjreddie"} and cfg.net.integer("mosaic", 0):
        # load_data_detection in AlexeyAB's src/data.c exits without OpenCV.
        yield LintFinding(
            "warning",
            cfg.net.line_of("mosaic"),
            "mosaic=1 needs a darknet built with OpenCV",
            "Set mosaic=0 for a build without OpenCV",
        )


def _suggestion(key: str, supported: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, sorted(supported), n=1, cutoff=0.8)
    return f"Did you mean {close[0]}?" if close else ""


_Rule = Callable[["Cfg", int, "ForkName | None"], "Iterator[LintFinding]"]
_OWN_RULES: tuple[_Rule, ...] = (_check_all_anchors, _check_varying_size, _check_copied_filters)
_RULES: tuple[_Rule, ...] = (
    *_OWN_RULES,
    _check_size,
    _check_batch,
    _check_learning_rate,
    _check_schedule,
    _check_heads,
    _check_shared_anchors,
    _check_shortcuts,
    _check_unmeasured,
    _check_repeated_keys,
    _check_vocabulary,
)
