"""The darknet program: its lines, how it is found, built and called."""
