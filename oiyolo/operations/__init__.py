"""Commands that are no stage: they look at a project, or run several stages."""
