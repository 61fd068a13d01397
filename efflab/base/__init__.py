"""What the rest stands on and knows nothing of models: files, caches, threads, numbers as text."""
