"""What owns workers, one module or package each."""
