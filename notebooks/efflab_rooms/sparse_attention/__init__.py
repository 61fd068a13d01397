"""The room behind notebook 03."""
