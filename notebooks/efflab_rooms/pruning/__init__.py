"""The room behind notebook 11."""
