"""The article's third dimension: fewer bits for each weight, and fewer weights."""
