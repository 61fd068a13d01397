"""The room behind notebook 14."""
