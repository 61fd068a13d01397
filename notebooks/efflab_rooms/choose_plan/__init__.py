"""The room behind notebook 15."""
