"""Activations, section kinds, policies and options that each fork of darknet supports.

From get_activation (src/activations.c), string_to_layer_type and the parse_* functions
(src/parser.c) of pjreddie f6afaabc and AlexeyAB 59596d78. hank-ai's fork is based on AlexeyAB's
and supports the same.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIVATIONS = _words(
    "logistic loggy relu elu selu relie plse hardtan lhtan linear ramp leaky tanh stair"
)
ALEXEYAB_ACTIVATIONS = _words(
    "swish mish hard_mish normalize_channels normalize_channels_softmax "
    "normalize_channels_softmax_maxval relu6 gelu revleaky"
)
"""Activations that AlexeyAB's fork has and pjreddie's lacks."""

ALEXEYAB_KINDS = _words(
    "scale_channels sam Gaussian_yolo local_avgpool reorg3d empty implicit contrastive "
    "conv_lstm history"
)
"""Section kinds that AlexeyAB's fork has and pjreddie's lacks."""

POLICIES = _words("constant step steps exp poly sigmoid random")
ALEXEYAB_POLICIES = _words("sgdr")
"""Policies that AlexeyAB's fork has and pjreddie's lacks (get_policy in src/parser.c)."""

_REGION = (
    "absolute anchors bias_match class_scale classes classfix coord_scale coords jitter log map "
    "mask_scale max noobject_scale num object_scale random rescore softmax sqrt thresh tree"
)
_DETECTION = (
    "class_scale classes coord_scale coords forced jitter max noobject_scale num object_scale "
    "random reorg rescore side softmax sqrt"
)
_SHARED_KEYS = {
    "connected": _words("output activation batch_normalize"),
    "upsample": _words("stride scale"),
    "crop": _words("angle crop_height crop_width exposure flip noadjust saturation shift"),
    "local": _words("activation filters pad size stride"),
    "softmax": _words("groups noloss spatial temperature tree"),
    "normalization": _words("alpha beta kappa size"),
    "activation": _words("activation"),
    "avgpool": _words(""),
    "batchnorm": _words(""),
}
PJREDDIE_KEYS = {
    **_SHARED_KEYS,
    "": _words(
        "truth onlyforward stopbackward dontsave dontload numload dontloadscales learning_rate "
        "smooth"
    ),
    "net": _words(
        "batch subdivisions time_steps notruth random momentum decay adam B1 B2 eps width height "
        "channels inputs max_crop min_crop max_ratio min_ratio center clip angle aspect saturation "
        "exposure hue policy burn_in power step scale steps scales gamma max_batches"
    ),
    "convolutional": _words(
        "filters size stride pad padding groups activation batch_normalize binary xnor flipped dot"
    ),
    "maxpool": _words("stride size padding"),
    "route": _words("layers"),
    "shortcut": _words("from activation alpha beta"),
    "yolo": _words("classes num mask max jitter ignore_thresh truth_thresh random map anchors"),
    "region": _words(f"{_REGION} background"),
    "detection": _words(_DETECTION),
    "reorg": _words("stride reverse flatten extra"),
    "dropout": _words("probability"),
    "cost": _words("type scale ratio noobj thresh"),
}
"""Options by section kind; those under "" are valid in any layer."""

ALEXEYAB_KEYS = {
    **_SHARED_KEYS,
    "": _words(
        "clip onlyforward dont_update burnin_update stopbackward train_only_bn dontload "
        "dontloadscales learning_rate"
    ),
    "net": _words(
        "max_batches batch learning_rate_min sgdr_cycle sgdr_mult momentum decay subdivisions "
        "time_steps track augment_speed sequential_subdivisions try_fix_nan weights_reject_freq "
        "equidistant_point badlabels_rejection_percentage num_sigmas_reject_badlabels ema_alpha "
        "use_cuda_graph loss_scale dynamic_minibatch optimized_memory workspace_size_limit_MB adam "
        "B1 B2 eps width height channels inputs max_crop min_crop flip blur gaussian_noise mixup "
        "cutmix mosaic letter_box mosaic_bound contrastive contrastive_jit_flip contrastive_color "
        "unsupervised label_smooth_eps resize_step attention adversarial_lr max_chart_loss angle "
        "aspect saturation exposure hue power policy burn_in step scale steps scales seq_scales "
        "gamma show_receptive_field"
    ),
    "convolutional": _words(
        "filters groups size stride stride_x stride_y dilation antialiasing pad padding activation "
        "assisted_excitation share_index batch_normalize cbn binary xnor bin_output sway rotate "
        "stretch stretch_sway flipped dot angle grad_centr reverse coordconv stream wait_stream"
    ),
    "maxpool": _words(
        "stride stride_x stride_y size padding maxpool_depth out_channels antialiasing "
        "maxpool_zero_nonmax"
    ),
    "route": _words("layers groups group_id stream wait_stream"),
    "shortcut": _words("from activation weights_type weights_normalization"),
    "yolo": _words(
        "classes num mask max show_details max_delta counters_per_class label_smooth_eps "
        "scale_x_y objectness_smooth new_coords iou_normalizer obj_normalizer cls_normalizer "
        "delta_normalizer iou_loss iou_thresh_kind beta_nms nms_kind jitter resize focal_loss "
        "ignore_thresh truth_thresh iou_thresh random track_history_size sim_thresh "
        "dets_for_track dets_for_show track_ciou_norm embedding_layer map anchors"
    ),
    "Gaussian_yolo": _words(
        "classes num mask max label_smooth_eps scale_x_y objectness_smooth iou_normalizer "
        "obj_normalizer cls_normalizer delta_normalizer uc_normalizer iou_loss iou_thresh_kind "
        "beta_nms nms_kind yolo_point jitter resize ignore_thresh truth_thresh iou_thresh random "
        "max_delta counters_per_class map anchors"
    ),
    "region": _words(f"{_REGION} focal_loss resize"),
    "detection": _words(f"{_DETECTION} resize"),
    "reorg": _words("stride reverse"),
    "dropout": _words("probability dropblock dropblock_size_rel dropblock_size_abs"),
    "local_avgpool": _words("stride stride_x stride_y size padding"),
    "cost": _words("type scale ratio"),
    "scale_channels": _words("from activation scale_wh"),
    "sam": _words("from activation"),
}
"""Options by section kind; those under "" are valid in any layer."""
