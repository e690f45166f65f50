"""Where packages come from: the settings of pip, as uv takes them.

An organisation that configures its own index for pip wants it for every installer. This file
needs nothing but Python: `make` reads it before anything is installed.
"""

import ast
import subprocess
import sys
from collections.abc import Mapping

UV = "uv==0.13.9"
# pip's settings and uv's variables for them. They are passed by the environment, not on the command
# line, because an index's URL may hold a password.
_UV_SETTINGS: Mapping[str, str] = {
    "index-url": "UV_INDEX_URL",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
# Like pip: the best version of all indexes, not only of the first one.
_STRATEGY = {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def settings() -> dict[str, str]:
    """Return the variables that give uv the package indexes of this Python's pip."""
    found = dict(_STRATEGY)
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    for section in ("global.", "install.", ":env:."):  # the later one wins
        for line in listed.splitlines():  # global.index-url='https://…'
            name, _, quoted = line.removeprefix(section).partition("=")
            setting = _UV_SETTINGS.get(name) if line.startswith(section) else None
            if setting is None:
                continue
            values = str(ast.literal_eval(quoted)).split()
            found[setting] = ("," if setting == "UV_FIND_LINKS" else " ").join(values)
    return found
