"""Contact sheets and charts of a dataset, and one page that shows them all."""
