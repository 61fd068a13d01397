"""The room behind notebook 09."""
