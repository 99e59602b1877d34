"""The table of all prepared boxes, and parts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.stages.prepare import boxes_csv

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "ImageID,XMin,XMax,YMin,YMax,class,class_id,used,dropped_because"
ROWS = [
    '000000000000000a,0,1,0,1,"Bread, white",0,True,',
    "000000000000000b,0,1,0,0.5,Boat,1,False,group-of",
    '000000000000000a,0,0.5,0,1,"Bread, white",0,True,',
]


def write(folder: Path, *columns: str) -> Path:
    (folder / boxes_csv.NAME).write_text("\n".join([*columns, *ROWS, ""]))
    return folder


def test_the_boxes_of_some_images_are_those_rows_of_the_table(tmp_path: Path) -> None:
    whole = boxes_csv.read(write(tmp_path, HEADER))
    part = boxes_csv.read(tmp_path, ["000000000000000a", "000000000000000c"])
    assert len(whole) == 3
    assert part.to_dict("list") == whole.iloc[[0, 2]].to_dict("list")
    assert part.dtypes.equals(whole.dtypes)
    none = boxes_csv.read(tmp_path, ["000000000000000c"])
    assert (len(none), [*none]) == (0, [*whole])


def test_a_damaged_table_is_an_error_for_some_images_too(tmp_path: Path) -> None:
    write(tmp_path, HEADER.replace("XMax", "XMux"))
    for image_ids in (None, ["000000000000000a"]):
        with pytest.raises(InputFormError):
            boxes_csv.read(tmp_path, image_ids)
