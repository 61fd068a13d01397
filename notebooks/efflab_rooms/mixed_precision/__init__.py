"""The room behind notebook 06."""
