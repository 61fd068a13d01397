"""The room behind notebook 13."""
