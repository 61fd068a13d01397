"""Chapter 2: hardware-aware acceleration, one file per technique."""
