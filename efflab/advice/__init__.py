"""Which technique serves which budget: predicted gains, each with its kind and its source."""
