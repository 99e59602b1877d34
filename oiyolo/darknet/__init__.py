"""The darknet program: its forks, its command lines, its lists and detections."""
