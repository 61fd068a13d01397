"""The article's chapter on structure: sharing, mixing, sparse, low-rank and dynamic attention."""
