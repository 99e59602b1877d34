"""Commands that are not stages: they inspect a project or run several stages."""
