"""A small network for hand calculations."""

from __future__ import annotations

import pytest

# A detector of two classes, small enough for hand calculations.
SMALL = """\
# Ours.
[net]
batch = 8
subdivisions=2  # two parts
width=64
height=64
channels=3
learning_rate=.002
burn_in=20
max_batches=400
policy=steps
steps=300,360
scales=.1,.1

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear

; a head of two anchors
[yolo]
mask = 0,1
anchors = 8,9,  20.5,18
classes=2
num=2
jitter=.1
ignore_thresh=.6
truth_thresh=1
random=0
"""


@pytest.fixture
def small_text() -> str:
    return SMALL
