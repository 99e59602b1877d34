"""Training of darknet networks with PyTorch; imports nothing that knows a project or a run."""
