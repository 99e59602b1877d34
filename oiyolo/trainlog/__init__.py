"""Parse darknet's training logs into tables, and summarize how a run is going."""
