"""Open Images: its official files, their cache, the class hierarchy, and the selection."""
