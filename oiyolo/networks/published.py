"""Trained detectors that can be downloaded: the files that each consists of, and where they are.

Weights come with the network that they belong to, and with class names. A network that oiyolo
builds itself, and the names of COCO's classes, are not downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from oiyolo.networks.builders import adapt, stock
from oiyolo.networks.cfg import read
from oiyolo.networks.weights import CHECKSUMS, Checksum, MirrorUrl, Pretrained

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg

_RAW: Final = "https://raw.githubusercontent.com/"
_FASTEST_COMMIT: Final = "96a2900d163196c396e73f3fdab04ca4dd9a2f70"
_FASTEST_FOLDER: Final = "ModelZoo/yolo-fastest-1.1_coco/"
# Of one commit each, so that another file than the known one is wrong.
_FASTEST: Final = (
    f"{_RAW}dog-qiuqiu/Yolo-Fastest/{_FASTEST_COMMIT}/{_FASTEST_FOLDER}",
    f"https://cdn.jsdelivr.net/gh/dog-qiuqiu/Yolo-Fastest@{_FASTEST_COMMIT}/{_FASTEST_FOLDER}",
)
_DATA_COMMIT: Final = "f6afaabcdf85f77e7aff2ec55c020c0e297c77f9"
_DARKNET_DATA: Final = (
    f"{_RAW}pjreddie/darknet/{_DATA_COMMIT}/data/",
    f"https://cdn.jsdelivr.net/gh/pjreddie/darknet@{_DATA_COMMIT}/data/",
)
_PJREDDIE: Final = ("https://data.pjreddie.com/files/", "https://pjreddie.com/media/files/")
_YOLOV4: Final = (
    "https://github.com/AlexeyAB/darknet/releases/download/darknet_yolo_v4_pre/",
    "https://github.com/hank-ai/darknet/releases/download/v2.0/",
)


@dataclass(frozen=True)
class PublishedDetector:
    """A trained detector whose authors published its weights.

    Attributes:
        name: Its name.
        weights: Name of its weights in ``FILES``.
        class_count: Number of classes.
        network: Network of oiyolo with the same layers; empty if ``cfg`` is downloaded.
        size_wh: Width and height of its input in pixels.
        cfg: Name of its network in ``FILES``; empty for one of oiyolo's.
        names: Name of its class names in ``FILES``; empty for COCO's.
    """

    name: str
    weights: str
    class_count: int
    size_wh: tuple[int, int]
    network: str = ""
    cfg: str = ""
    names: str = ""

    @property
    def files(self) -> tuple[Pretrained, ...]:
        """The files to download."""
        return tuple(FILES[name] for name in (self.cfg, self.names, self.weights) if name)

    @property
    def url(self) -> str:
        """First URL of its weights."""
        return FILES[self.weights].mirrors[0].url

    def read_cfg(self, folder: Path) -> Cfg:
        """Return its network, for which ``folder`` contains the downloaded files."""
        if self.cfg:
            return read(folder / self.cfg)
        return adapt(stock(self.network), class_count=self.class_count, size_wh=self.size_wh)


def _file(
    name: str, size_bytes: int, folders: tuple[str, ...], checksum: Checksum, *, layers: int = 0
) -> Pretrained:
    mirrors = tuple(MirrorUrl(folder + name) for folder in folders)
    return Pretrained(name, size_bytes, layers, mirrors, checksum)


_FILES: Final = (
    _file(
        "yolo-fastest-1.1-xl.weights",
        3_693_964,
        _FASTEST,
        replace(CHECKSUMS["yolo-fastest-1.1-xl.weights"], is_confirmed=True),
        layers=131,
    ),
    _file(
        "yolo-fastest-1.1-xl.cfg",
        9_696,
        _FASTEST,
        Checksum(("c458427acc4fbeabceff4528ef7b65b066c0308ce599460f8ba299eba63abad3",)),
    ),
    _file(
        "yolov4-tiny.weights",
        24_251_276,
        _YOLOV4,
        CHECKSUMS["yolov4-tiny.weights"],
        layers=38,
    ),
    _file(
        "yolov3-openimages.weights",
        259_229_388,
        _PJREDDIE,
        CHECKSUMS["yolov3-openimages.weights"],
        layers=107,
    ),
    _file(
        "openimages.names",
        5_476,
        _DARKNET_DATA,
        Checksum(("44cdd34ebe5b46440b6ec5d0978f292def7b57c7cea049f3d4fe79ed88d40664",)),
    ),
)
FILES: Mapping[str, Pretrained] = MappingProxyType({file.name: file for file in _FILES})

DETECTORS: Mapping[str, PublishedDetector] = MappingProxyType(
    {
        detector.name: detector
        for detector in (
            PublishedDetector(
                "yolo-fastest-xl",
                "yolo-fastest-1.1-xl.weights",
                80,
                (320, 320),
                cfg="yolo-fastest-1.1-xl.cfg",
            ),
            PublishedDetector(
                "yolov4-tiny", "yolov4-tiny.weights", 80, (416, 416), network="yolov4-tiny"
            ),
            PublishedDetector(
                "yolov3-openimages",
                "yolov3-openimages.weights",
                601,
                (608, 608),
                network="yolov3",
                names="openimages.names",
            ),
        )
    }
)
"""Published detectors by name; the first is the smallest."""
