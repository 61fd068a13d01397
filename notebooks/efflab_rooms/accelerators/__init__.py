"""The room behind notebook 08."""
