"""Scenes are reproducible and varied, and their boxes fit the drawn objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo.demo_data import catalogue, sprites
from oiyolo.demo_data.canvas import Canvas
from oiyolo.demo_data.scenes import BOAT_FAMILY, SceneKind, draw_scene

if TYPE_CHECKING:
    from oiyolo.demo_data.scenes import Scene


KINDS = [
    *[SceneKind.BOATS] * 60,
    *[SceneKind.NO_BOATS] * 8,
    *[SceneKind.MARINA] * 3,
    *[SceneKind.POSTER] * 3,
    *[SceneKind.ON_BOARD] * 3,
]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng([3, nth]), kind) for nth, kind in enumerate(KINDS)]


def test_the_same_random_numbers_draw_the_same_scene() -> None:
    first, second = (draw_scene(np.random.default_rng(8)) for _ in range(2))
    assert first.objects == second.objects
    assert first.image.tobytes() == second.image.tobytes()


def test_scenes_are_colour_images_of_up_to_seven_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.mode == "RGB"
        assert max(scene.image.size) == 400
        assert 1 <= len(scene.objects) <= 7
    assert {scene.image.width > scene.image.height for scene in scenes} == {True, False}


def test_every_class_is_an_official_class(scenes: list[Scene]) -> None:
    names = {item.name for scene in scenes for item in scene.objects}
    assert names <= set(catalogue.MIDS)
    assert len(names) > 8
    assert names >= BOAT_FAMILY


def test_boxes_are_inside_the_image_and_clicks_on_the_edges_of_boxes(scenes: list[Scene]) -> None:
    for item in (item for scene in scenes for item in scene.objects):
        left, top, right, bottom = item.xyxy
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        at_top, at_left, at_bottom, at_right = item.clicks
        assert (at_top[1], at_left[0], at_bottom[1], at_right[0]) == (top, left, bottom, right)
        for x, y in item.clicks:
            assert left <= x <= right
            assert top <= y <= bottom


def test_boats_are_large_enough_to_be_detected(scenes: list[Scene]) -> None:
    widths = [
        item.xyxy[2] - item.xyxy[0]
        for kind, scene in zip(KINDS, scenes, strict=True)
        if kind is SceneKind.BOATS
        for item in scene.objects
        if item.name in BOAT_FAMILY and not item.truncated and not item.occluded
    ]
    assert np.quantile(widths, 0.05) > 0.15
    assert max(widths) < 0.62


def test_the_kind_of_a_scene_determines_its_boats(scenes: list[Scene]) -> None:
    for kind, scene in zip(KINDS, scenes, strict=True):
        boats = [item for item in scene.objects if item.name in BOAT_FAMILY]
        assert bool(boats) == (kind is not SceneKind.NO_BOATS)
        assert any(item.group_of for item in boats) == (kind is SceneKind.MARINA)
        assert any(item.depiction for item in boats) == (kind is SceneKind.POSTER)
        assert any(item.inside for item in boats) == (kind is SceneKind.ON_BOARD)


def test_truncated_objects_reach_an_edge_of_the_image(scenes: list[Scene]) -> None:
    truncated = [item for scene in scenes for item in scene.objects if item.truncated]
    assert truncated
    for item in truncated:
        left, top, right, bottom = item.xyxy
        assert min(left, top, 1 - right, 1 - bottom) < 0.03


def test_no_two_scenes_are_near_duplicates(scenes: list[Scene]) -> None:
    hashes = np.stack([_difference_hash(scene.image) for scene in scenes])
    distances = (hashes[:, None] != hashes[None]).sum(axis=2)
    assert distances[np.triu_indices(len(hashes), 1)].min() > 6


def _difference_hash(image: Image.Image) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=int)
    return np.asarray((grey[:, 1:] > grey[:, :-1]).ravel())


@pytest.mark.parametrize(
    "sprite",
    [*sprites.BOATS, sprites.MOORED_YACHT, *sprites.OTHERS],
    ids=lambda sprite: sprite.paint.__name__,
)
def test_each_sprite_fits_its_width_and_headroom(sprite: sprites.Sprite) -> None:
    for seed in range(4):
        canvas = Canvas(100.0, headroom=sprite.headroom, mirrored=bool(seed % 2))
        sprite.paint(canvas, np.random.default_rng(seed))
        cutout = canvas.cutout()
        assert 60 <= cutout.image.width <= 132
        # The top of the sprite is not cut off.
        assert -cutout.top_px < 100 * sprite.headroom
        assert -12 <= cutout.top_px + cutout.image.height <= 25
