"""Videos: read frame by frame, and written completely or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core import disks
from oiyolo.core.errors import UnavailableError
from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.operations.predict.video import Video, count_frames, write_video

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt


def write(path: Path, *pictures: npt.NDArray[np.uint8], fps: float = 10.0) -> Path:
    with write_video(path, fps) as video:
        for picture in pictures:
            video.write(picture)
    return path


def plain(level: int, wh: Sequence[int] = (64, 40)) -> npt.NDArray[np.uint8]:
    return np.full((wh[1], wh[0], 3), level, dtype=np.uint8)


def test_frames_have_their_order_times_and_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", *(plain(40 * n) for n in range(5)))
    with Video(path) as video:
        frames = list(video.frames())
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert [float(frame.rgb.mean()) for frame in frames] == pytest.approx(
        [0, 40, 80, 120, 160], abs=4
    )
    assert count_frames(path) == 5


def test_red_stays_red(tmp_path: Path) -> None:
    red = plain(0)
    red[..., 0] = 200
    with Video(write(tmp_path / "a.mp4", red)) as video:
        (frame,) = video.frames()
    assert frame.rgb[..., 0].mean() > 150
    assert frame.rgb[..., 2].mean() < 50


def test_all_pictures_of_a_video_have_the_size_of_the_first(tmp_path: Path) -> None:
    with Video(write(tmp_path / "a.mp4", plain(9), plain(9, (100, 70)))) as video:
        assert {frame.rgb.shape for frame in video.frames()} == {(40, 64, 3)}


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\n/etc/passwd\n", b"text"])
def test_what_is_not_a_video_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(UnreadableImageError), Video(tmp_path / "a.mp4") as video:
        list(video.frames())
    assert count_frames(tmp_path / "a.mp4") == 0


def write_to_a_full_disk(path: Path) -> None:
    with write_video(path, 10.0) as video:
        video.write(plain(9))
        video.close()
        (part,) = path.parent.iterdir()
        part.write_bytes(part.read_bytes()[:100])


def test_an_incomplete_video_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError):
        write_to_a_full_disk(tmp_path / "a.mp4")
    monkeypatch.setattr(disks, "free_bytes", lambda _: 0)
    with pytest.raises(UnavailableError):
        write(tmp_path / "a.mp4", plain(9))
    assert not list(tmp_path.iterdir())
