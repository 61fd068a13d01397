"""The room behind notebook 07."""
