"""A training run: its folder, plan, checks, supervision, checkpoints and recovery."""
