"""Open Images: its official files, what stands in them, and what to select from them."""
