"""Search large CSV files about as fast as they can be read, and parse only the matching rows."""
