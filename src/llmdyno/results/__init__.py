"""Journal → numbers, intervals and doubts."""
