"""Search large CSVs at the speed of reading them; parse only the rows that match."""
