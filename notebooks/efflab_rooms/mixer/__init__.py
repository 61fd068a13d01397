"""The room behind notebook 02."""
