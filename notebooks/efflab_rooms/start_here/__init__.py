"""The room behind notebook 00."""
