from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo.demo_data import catalogue, sprites
from oiyolo.demo_data.canvas import Pen
from oiyolo.demo_data.scenes import BOAT_FAMILY, Kind, draw_scene

if TYPE_CHECKING:
    from oiyolo.demo_data.scenes import Scene


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    kinds = [Kind.BOATS] * 60 + [Kind.NO_BOATS] * 8 + [Kind.MARINA] * 3
    kinds += [Kind.POSTER] * 3 + [Kind.ON_BOARD] * 3
    return [draw_scene(np.random.default_rng([3, nth]), kind) for nth, kind in enumerate(kinds)]


def test_the_same_random_numbers_draw_the_same_scene() -> None:
    first, second = (draw_scene(np.random.default_rng(8)) for _ in range(2))
    assert first.objects == second.objects
    assert first.image.tobytes() == second.image.tobytes()


def test_scenes_are_upright_colour_pictures_of_a_few_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.mode == "RGB"
        assert max(scene.image.size) == 400
        assert 1 <= len(scene.objects) <= 7
    assert {scene.image.width > scene.image.height for scene in scenes} == {True, False}


def test_every_class_is_an_official_one(scenes: list[Scene]) -> None:
    names = {drawn.name for scene in scenes for drawn in scene.objects}
    assert names <= set(catalogue.MIDS)
    assert len(names) > 8
    assert names >= BOAT_FAMILY


def test_boxes_lie_inside_the_image_and_the_clicks_on_their_edges(scenes: list[Scene]) -> None:
    for drawn in (drawn for scene in scenes for drawn in scene.objects):
        left, top, right, bottom = drawn.xyxy
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        at_top, at_left, at_bottom, at_right = drawn.clicks
        assert (at_top[1], at_left[0], at_bottom[1], at_right[0]) == (top, left, bottom, right)
        for x, y in drawn.clicks:
            assert left <= x <= right
            assert top <= y <= bottom


def test_boats_are_large_enough_to_be_learnt(scenes: list[Scene]) -> None:
    widths = [
        drawn.xyxy[2] - drawn.xyxy[0]
        for scene in scenes
        if scene.kind is Kind.BOATS
        for drawn in scene.objects
        if drawn.name in BOAT_FAMILY and not drawn.truncated and not drawn.occluded
    ]
    assert np.quantile(widths, 0.05) > 0.15
    assert max(widths) < 0.62


def test_each_kind_has_what_it_is_named_after(scenes: list[Scene]) -> None:
    for scene in scenes:
        boats = [drawn for drawn in scene.objects if drawn.name in BOAT_FAMILY]
        assert bool(boats) == (scene.kind is not Kind.NO_BOATS)
        assert any(drawn.group_of for drawn in boats) == (scene.kind is Kind.MARINA)
        assert any(drawn.depiction for drawn in boats) == (scene.kind is Kind.POSTER)
        assert any(drawn.inside for drawn in boats) == (scene.kind is Kind.ON_BOARD)


def test_what_reaches_an_edge_of_the_image_is_truncated(scenes: list[Scene]) -> None:
    truncated = [drawn for scene in scenes for drawn in scene.objects if drawn.truncated]
    assert truncated
    for drawn in truncated:
        left, top, right, bottom = drawn.xyxy
        assert min(left, top, 1 - right, 1 - bottom) < 0.03


def test_no_two_scenes_are_near_duplicates(scenes: list[Scene]) -> None:
    hashes = np.stack([_difference_hash(scene.image) for scene in scenes])
    distances = (hashes[:, None] != hashes[None]).sum(axis=2)
    assert distances[np.triu_indices(len(hashes), 1)].min() > 6


def _difference_hash(image: Image.Image) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=int)
    return np.asarray((grey[:, 1:] > grey[:, :-1]).ravel())


@pytest.mark.parametrize(
    "thing",
    [*sprites.BOATS, sprites.MOORED, *sprites.OTHERS],
    ids=lambda thing: thing.paint.__name__,
)
def test_each_thing_fits_its_own_width_and_room(thing: sprites.Thing) -> None:
    for seed in range(4):
        pen = Pen(100.0, up=thing.up, mirrored=bool(seed % 2))
        thing.paint(pen, np.random.default_rng(seed))
        cutout = pen.cutout()
        assert 60 <= cutout.picture.width <= 132
        # Nothing is cut off above: there is room left, if only a little.
        assert -cutout.top_px < 100 * thing.up
        assert -12 <= cutout.top_px + cutout.picture.height <= 25
