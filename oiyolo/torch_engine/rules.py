"""How the forks of darknet compute a training step, where they differ.

Sources: pjreddie f6afaabc and Debian 61c9d02e (src/batchnorm_layer.c, src/blas.c,
src/blas_kernels.cu, src/yolo_layer.c, src/region_layer.c, src/parser.c), AlexeyAB 59596d78 (the
same files, and src/gaussian_yolo_layer.c). hank-ai's fork computes what AlexeyAB's does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from oiyolo.networks.lint import ForkName


@dataclass(frozen=True)
class NormRules:
    """A batch normalization.

    Attributes:
        momentum: Share of a batch's statistics in the rolling ones.
        divides_by_count: Whether a batch is normalized with the mean of the squared deviations;
            otherwise their sum is divided by the number of values minus 1. The rolling variance is
            always of the latter kind.
        epsilon: Added to a variance.
        deviation_epsilon: Added to a standard deviation, in the forward pass.
    """

    momentum: float = 0.01
    divides_by_count: bool = False
    epsilon: float = 1e-5
    deviation_epsilon: float = 0.0


@dataclass(frozen=True)
class Defects:
    """Defects of a fork's CPU code, reproduced only in order to compare updates with it.

    Because of them no fork trains well on the CPU. Two more are not reproduced: in AlexeyAB's fork
    the deltas of [upsample], [route] and other layers without parameters are never set to 0, so
    they add up; in pjreddie's, [region] passes no gradient on, so YOLOv2 does not learn.

    Attributes:
        overwriting_sizes: Sizes of the kernels of convolutions that discard the gradient which
            their input has from later layers, such as a [shortcut]: 1 in pjreddie's fork, where the
            product replaces what is there, and all in AlexeyAB's, where col2im_cpu_ext begins with
            zeros (backward_convolutional_layer).
        keeps_norm_biases: Whether the biases of normalized layers are not trained: AlexeyAB's
            backward_batchnorm_layer does not compute their gradient.
        deviation_epsilon: Added to the deviation by which a normalization's gradient is divided
            directly, instead of an epsilon of the variance (normalize_delta_cpu); 0 for neither.
    """

    overwriting_sizes: Container[int] = ()
    keeps_norm_biases: bool = False
    deviation_epsilon: float = 0.0


_PJREDDIES_DEFECTS = Defects(overwriting_sizes=(1,))
_ALEXEYABS_DEFECTS = Defects(
    overwriting_sizes=range(1, 1 << 16), keeps_norm_biases=True, deviation_epsilon=1e-5
)


@dataclass(frozen=True)
class Rules:
    """The rules of a fork.

    Attributes:
        fork: The fork.
        norm: Batch normalization.
        ignores_by_class: Whether an unassigned box is only spared for its overlap with a truth if
            one of its class probabilities is above 0.25; which class is not compared
            (compare_yolo_class in AlexeyAB's src/yolo_layer.c).
        has_options: Whether the options of AlexeyAB's heads are read; pjreddie's fork ignores them.
        has_delta_factor: Whether ``delta_normalizer`` is read, which only AlexeyAB's GPU
            code does.
        sums_boxes: Whether the box deltas of several truths in one cell add up; otherwise the last
            one counts.
        max_truths: Default of ``max`` in [yolo].
        max_region_truths: The same in [region]; in pjreddie's fork a constant.
        weighs_small_regions: Whether [region] weighs small boxes up, as [yolo] does.
        counts_region_slopes: Whether the printed loss of [region] contains the slope of the
            logistic function, by which its deltas of centres and objectness are multiplied.
        defects: Defects of the fork that are reproduced.
        revision: Revision in the header of a weights file.
    """

    fork: ForkName
    norm: NormRules
    ignores_by_class: bool
    has_options: bool
    has_delta_factor: bool
    sums_boxes: bool
    max_truths: int
    max_region_truths: int
    weighs_small_regions: bool
    counts_region_slopes: bool
    revision: int
    defects: Defects = Defects()


def rules_for(fork: ForkName, *, gpu: bool, with_defects: bool = False) -> Rules:
    """Return the rules of a fork.

    Args:
        fork: The fork.
        gpu: Whether they are those of its GPU code (with cuDNN, for AlexeyAB's).
        with_defects: Whether to reproduce the defects of its CPU code.
    """
    if with_defects:
        defects = _PJREDDIES_DEFECTS if fork == "pjreddie" else _ALEXEYABS_DEFECTS
        return replace(rules_for(fork, gpu=gpu), defects=defects)
    if fork == "pjreddie":
        return Rules(
            fork=fork,
            # normalize_cpu in src/blas.c divides by sqrt(variance) + .000001.
            norm=NormRules(deviation_epsilon=0.0 if gpu else 1e-6),
            ignores_by_class=False,
            has_options=False,
            has_delta_factor=False,
            sums_boxes=False,
            max_truths=90,
            max_region_truths=30,
            weighs_small_regions=True,
            counts_region_slopes=False,
            revision=0,
        )
    return Rules(
        fork=fork,
        norm=NormRules(divides_by_count=True) if gpu else NormRules(momentum=0.1),
        ignores_by_class=True,
        has_options=True,
        has_delta_factor=gpu,
        sums_boxes=True,
        max_truths=200,
        max_region_truths=200,
        weighs_small_regions=False,
        counts_region_slopes=True,
        revision=5,
    )
