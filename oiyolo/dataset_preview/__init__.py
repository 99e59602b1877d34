"""Contact sheets and charts of a dataset, and a page that shows them."""
