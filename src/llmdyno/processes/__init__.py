"""Start, watch and stop servers and builds; no process survives dyno."""
