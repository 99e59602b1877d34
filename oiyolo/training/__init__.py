"""A training run: its folder, how it is watched, how it is told whether it succeeded."""
