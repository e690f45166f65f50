"""The raw facts of a run, and the journal that holds them."""
