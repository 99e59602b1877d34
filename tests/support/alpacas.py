"""The real photographs of alpacas, served as an Open Images of their own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.demo_data.server import serve
from oiyolo.demo_data.writer import BOX_FILES, CLASS_FILES, HIERARCHY_FILE, IMAGE_FILES
from oiyolo.demo_data.writer import LABEL_FILES as LABELS_OF

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

ALPACA = "/m/0pcr"
BOX_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,"
    "IsDepiction,IsInside,XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
)
IMAGE_HEADER = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
)
LABEL_HEADER = "ImageID,Source,LabelName,Confidence"


def labels_in(path: Path) -> npt.NDArray[np.float64]:
    """Return the class, centre and size of each line, sorted."""
    rows = [list(map(float, line.split())) for line in path.read_text().splitlines()]
    return np.array(sorted(rows), dtype=np.float64).reshape(-1, 5)


def write_official(alpaca: Path, folder: Path) -> None:
    """Write the photographs and their labels in the official V6 formats."""
    boxes, images, labels = [BOX_HEADER], [IMAGE_HEADER], [LABEL_HEADER]
    mirror_folder = folder / "open-images-dataset" / "train"
    mirror_folder.mkdir(parents=True)
    for number, path in enumerate(sorted((alpaca / "images").glob("*.jpg"))):
        image_id = path.stem
        shutil.copyfile(path, mirror_folder / path.name)
        for _, x, y, width, height in labels_in(alpaca / "labels" / f"{image_id}.txt"):
            corners = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
            fields = ",".join(f"{value:.6f}" for value in corners)
            boxes.append(f"{image_id},xclick,{ALPACA},1,{fields},0,0,0,0,0" + ",-1.000000" * 8)
        content = path.read_bytes()
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        images.append(
            f"{image_id},train,https://farm1.staticflickr.com/1/{image_id}_o.jpg,"
            f"https://www.flickr.com/photos/{number}/1,https://creativecommons.org/licenses/by/2.0/"
            f',https://www.flickr.com/people/{number}/,"An author, {number}","Alpaca ""{number}"""'
            f",{len(content)},{md5},,0.0"
        )
        labels.append(f"{image_id},verification,{ALPACA},1")
    tree = {"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": ALPACA}]}
    for name, text in {
        BOX_FILES["train"]: "\n".join(boxes) + "\n",
        IMAGE_FILES["train"]: "\n".join(images) + "\n",
        LABELS_OF["train"]: "\n".join(labels) + "\n",
        CLASS_FILES[1]: f"LabelName,DisplayName\n/m/0bl9f,Animals\n{ALPACA},Alpaca\n",
        HIERARCHY_FILE: json.dumps(tree),
    }.items():
        path = folder / "openimages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def serve_alpacas(alpaca: Path, folder: Path) -> Iterator[dict[str, object]]:
    """Serve the photographs on this machine; yield the options of a project that uses them."""
    write_official(alpaca, folder)
    with serve(folder) as server:
        yield {
            "classes": ["Alpaca"],
            "base_url": f"{server.base_url}/openimages",
            "mirror_url": f"{server.base_url}/open-images-dataset",
            "sources": ["mirror"],
            "tolerance": 0.0,
        }
