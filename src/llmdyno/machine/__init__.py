"""This machine: its hardware, the versions installed on it, its limit on open files."""
