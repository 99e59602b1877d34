"""How good a detector is: matching, average precision in three definitions, pictures of it."""
