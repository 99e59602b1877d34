"""The kinds of problems that the readers report, in the words by which they are counted."""

from __future__ import annotations

from typing import Final

BAD_FOLDER: Final = "unreadable folder"
BAD_IMAGE: Final = "unreadable image"
BAD_NAME: Final = "name that is not UTF-8"
BROKEN: Final = "unreadable annotation"
NO_IMAGE: Final = "label without an image"
NO_LABEL: Final = "image without a label"
AMBIGUOUS: Final = "several images match"
TWICE: Final = "image labelled twice"
LEADS_OUT: Final = "path that leads out of the folder"
NOT_FOUND: Final = "listed image that is missing"
NOT_LISTED: Final = "images in no list"
IN_TWO_SPLITS: Final = "image in two splits"
NO_NAMES: Final = "no list of classes, named by their numbers"
MISREAD: Final = "line that darknet would misread"
POLYGON: Final = "polygons, read as their bounding boxes"
OUTSIDE: Final = "box outside its image"
NO_AREA: Final = "box without area"
MALFORMED: Final = "malformed box"
WRONG_SIZE: Final = "stated size differs from the image's"
EXIF_ASSUMED: Final = "turned by EXIF, frame of the boxes not stated"
ALL_SKIPPED: Final = "image that lost all its boxes"
UNKNOWN_CLASS: Final = "unknown class"
