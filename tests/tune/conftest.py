"""A run and a study that lie on disk, for each test of its own."""

from lab import made, results

__all__ = ["made", "results"]
