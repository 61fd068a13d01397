"""The room behind notebook 16."""
