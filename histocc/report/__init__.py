"""What a run tells people who were not there: a page with its curves and tables, and the card of its model."""
