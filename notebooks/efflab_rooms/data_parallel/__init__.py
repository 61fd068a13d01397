"""The room behind notebook 12."""
