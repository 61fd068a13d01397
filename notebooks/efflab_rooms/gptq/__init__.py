"""The room behind notebook 10."""
