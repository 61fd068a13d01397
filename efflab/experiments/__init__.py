"""What takes longer than a notebook: one function each, its results kept with their provenance."""
