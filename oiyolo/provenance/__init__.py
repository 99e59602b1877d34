"""Records of where a dataset and its detectors come from: credits, cards, Croissant metadata."""
