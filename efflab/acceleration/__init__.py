"""Chapter 2: hardware. One file a technique, each of which stands alone."""
