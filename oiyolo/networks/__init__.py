"""Read, check and build darknet's .cfg and .weights files, and adapt them to a dataset."""
