"""Commands that are not stages: they create or inspect a project, or run several stages."""
