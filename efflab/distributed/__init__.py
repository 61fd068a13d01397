"""Chapter 4: training on several processes of one machine, and simulations of many."""
