"""Weights compressed in place: the command; test_build.py makes and serves some."""

import subprocess
import sys
from pathlib import Path


def test_without_nncf_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['nncf'] = None; from llmdyno.embedded.compress import main;"
        f"sys.argv = ['compress', '--folder', {str(tmp_path)!r}, '--mode', 'int8_asym'];"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "pip install 'llmdyno[build]'" in done.stderr


def test_a_mode_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmdyno.embedded.compress", "--folder", str(tmp_path)]

    done = subprocess.run([*command, "--mode", "int2"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "int8_asym" in done.stderr
    assert "int4_sym" in done.stderr
