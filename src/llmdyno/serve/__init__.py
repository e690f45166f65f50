"""From an engine, a front and a model to a launch; what must be built is built first."""
