"""Advice on which technique helps which budget: predicted gains with their kind and source."""
