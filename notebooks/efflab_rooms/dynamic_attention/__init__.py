"""The room behind notebook 05."""
