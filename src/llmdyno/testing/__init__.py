"""Contract tests that a plug-in of somebody else's package can prove itself with; needs pytest."""
