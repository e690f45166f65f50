"""numpy's BLAS and its threads."""

import os


def import_numpy() -> None:
    """Import numpy without the threads of its BLAS, which measure nothing and spin as they start.

    The variable goes at once: servers that we start are not to inherit it.
    """
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        return
    os.environ[name] = "1"
    try:
        import numpy as np  # noqa: F401
    finally:
        del os.environ[name]
