"""Turns an engine, a front and a model into a launch, after the build that it needs."""
