"""Searches: which config to try next. One file each, all with the methods of `Searching`.

What a search may try comes from the knobs' `search` ranges (`space.py`). It is asked for a config,
told what came of it, and given what others proposed. A search keeps nothing on disk.
"""
