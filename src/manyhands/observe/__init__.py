"""What watches a run and cannot change it."""
