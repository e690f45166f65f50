"""Start SGLang's Rust client by its extension module alone; runs in the peer's own environment.

`python -m sglang.benchmark.rust_client` imports sglang, and with it torch and CUDA. The client
needs neither: its extension is loaded from its file, so that the environment holds one wheel.
"""

import importlib.util
import sys
import sysconfig
from pathlib import Path

(file,) = Path(sysconfig.get_path("platlib")).glob("sglang/srt/rust_extensions/_bench*.so")
spec = importlib.util.spec_from_file_location("_bench", file)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.run_argv(["sglang-bench", *sys.argv[1:]])
