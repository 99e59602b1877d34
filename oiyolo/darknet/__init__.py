"""The darknet program: its forks, command lines, image lists and detections."""
