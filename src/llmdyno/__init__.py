"""llmdyno: build an LLM server, put it under load, tune it, and prove the difference."""

__version__ = "0.2.0"
