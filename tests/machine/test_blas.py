"""numpy is imported without threads that spin."""

import os
import subprocess
import sys


def test_numpy_comes_without_threads_and_leaves_no_variable_to_servers() -> None:
    script = (
        "import os; from llmdyno.machine.blas import import_numpy; import_numpy();"
        "print('OPENBLAS_NUM_THREADS' in os.environ, len(os.listdir('/proc/self/task')))"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["False", "1"]
