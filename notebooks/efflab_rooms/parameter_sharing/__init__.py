"""The room behind notebook 01."""
