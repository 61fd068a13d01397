"""The room behind notebook 04."""
