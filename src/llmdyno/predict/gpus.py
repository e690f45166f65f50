"""What a GPU can do at most: its memory, its bandwidth, its FLOP/s by precision; and this CPU.

FLOP/s are dense: data sheets that give them "with sparsity" are halved. "bf16" stands for whatever
16-bit product with sums in 32 bits the GPU has (fp16 on the T4 and V100). A precision that a GPU
has not is not in its row: it computes in 16 bits then, with smaller weights to read.
"""

import re
from collections.abc import Mapping

import msgspec

from llmdyno.errors import DynoError, UsageError
from llmdyno.machine.hardware import memory_bytes
from llmdyno.machine.peaks import Peaks, this_machine
from llmdyno.predict.shapes import closest
from llmdyno.units import counted

GIB = 2.0**30


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as its maker describes it, or this machine's processor as it was measured.

    Attributes:
        memory_bytes: what its driver shows.
        bandwidth_bytes_s: of its memory.
        flops: operations a second by precision: bf16, fp8, int8, fp4; dense.
        near_bytes, near_bytes_s: a cache that keeps weights of so many bytes from step to step, and
            its bandwidth; 0: none does.
        number_bytes: of a number that it computes with: smaller weights are made as large when
            they are loaded, unless they are quantised.
        cores: of a processor, whose threads are shared with all else that runs there.
        measured: when, of a processor; empty: its maker says it.
    """

    name: str
    memory_bytes: float
    bandwidth_bytes_s: float
    flops: Mapping[str, float]
    source: str
    near_bytes: float = 0.0
    near_bytes_s: float = 0.0
    number_bytes: float = 2.0
    cores: int = 0
    measured: str = ""

    def bandwidth_of(self, weights: float) -> float:
        """Return the bandwidth at which weights of so many bytes are read, again and again."""
        return self.near_bytes_s if weights <= self.near_bytes else self.bandwidth_bytes_s

    def flops_at(self, precision: str) -> float:
        """Return operations a second in a precision; in 16 bits where it has not that one."""
        return self.flops.get(precision, self.flops["bf16"])


# name: GiB, GB/s, TFLOP/s in bf16, fp8, int8 (TOP/s), fp4; 0: it has none.
_Row = tuple[float, float, float, float, float, float]

_NVIDIA: dict[str, dict[str, _Row]] = {
    "NVIDIA Tesla V100 data sheet, 2020": {
        "V100 16GB": (16, 900, 125, 0, 0, 0),
        "V100 32GB": (32, 900, 125, 0, 0, 0),
    },
    "NVIDIA T4 data sheet, 2019": {"T4": (15, 320, 65, 0, 130, 0)},
    "NVIDIA A10 data sheet, 2021": {"A10": (22.5, 600, 125, 0, 250, 0)},
    "NVIDIA A10G as AWS describes its G5 instances, 2021": {"A10G": (22.5, 600, 70, 0, 140, 0)},
    "NVIDIA A30 data sheet, 2022": {"A30": (24, 933, 165, 0, 330, 0)},
    "NVIDIA A40 data sheet, 2021": {"A40": (45, 696, 149.7, 0, 299.3, 0)},
    "NVIDIA RTX A6000 data sheet, 2021": {"RTX A6000": (48, 768, 154.8, 0, 309.7, 0)},
    "NVIDIA RTX A5000 data sheet, 2021": {"RTX A5000": (24, 768, 111.1, 0, 222.2, 0)},
    "NVIDIA RTX A4000 data sheet, 2021": {"RTX A4000": (16, 448, 76.7, 0, 153.4, 0)},
    "NVIDIA A100 data sheet, 2021": {
        "A100 40GB PCIe": (40, 1555, 312, 0, 624, 0),
        "A100 40GB SXM": (40, 1555, 312, 0, 624, 0),
        "A100 80GB PCIe": (80, 1935, 312, 0, 624, 0),
        "A100 80GB SXM": (80, 2039, 312, 0, 624, 0),
    },
    "NVIDIA L4 data sheet, 2023": {"L4": (22.5, 300, 121, 242, 242, 0)},
    "NVIDIA L20 as its resellers list it, 2024": {"L20": (45, 864, 119.5, 239, 239, 0)},
    "NVIDIA DGX Spark data sheet, 2025": {"GB10": (119, 273, 125, 250, 250, 500)},
    "NVIDIA L40 data sheet, 2023": {"L40": (45, 864, 181, 362, 362, 0)},
    "NVIDIA L40S data sheet, 2023": {"L40S": (45, 864, 362, 733, 733, 0)},
    "NVIDIA RTX 6000 Ada data sheet, 2023": {"RTX 6000 Ada": (48, 960, 364, 728.5, 728.5, 0)},
    "NVIDIA H100 data sheet, 2024": {
        "H100 PCIe": (79.6, 2000, 756, 1513, 1513, 0),
        "H100 SXM": (79.6, 3350, 989.4, 1978.9, 1978.9, 0),
        "H100 NVL": (93.6, 3900, 835, 1670, 1670, 0),
        "H800 SXM": (79.6, 3350, 989.4, 1978.9, 1978.9, 0),
    },
    "NVIDIA H20 as its resellers list it, 2024": {"H20": (95.6, 4000, 148, 296, 296, 0)},
    "NVIDIA H200 data sheet, 2024": {
        "H200 SXM": (140.4, 4800, 989.4, 1978.9, 1978.9, 0),
        "H200 NVL": (140.4, 4800, 835, 1671, 1671, 0),
    },
    "NVIDIA GH200 data sheet, 2024": {
        "GH200 96GB": (95.6, 4000, 989.4, 1978.9, 1978.9, 0),
        "GH200 144GB": (141, 4900, 989.4, 1978.9, 1978.9, 0),
    },
    "NVIDIA Blackwell architecture brief and HGX data sheet, 2025": {
        "B100": (179, 8000, 1750, 3500, 3500, 7000),
        "B200": (179, 8000, 2250, 4500, 4500, 9000),
        "B300": (268, 8000, 2250, 4500, 150, 13500),
        "GB200": (184, 8000, 2500, 5000, 5000, 10000),
        "GB300": (276, 8000, 2500, 5000, 165, 15000),
    },
    "NVIDIA RTX Blackwell PRO architecture white paper, 2025": {
        "RTX PRO 6000": (95.6, 1792, 503.8, 1007.6, 1007.6, 2015),
        "RTX PRO 6000 Server": (95.6, 1597, 468, 936, 936, 1872),
    },
    "NVIDIA Ampere GA102 architecture white paper, 2021": {
        "RTX 3090": (24, 936, 71.2, 0, 284.7, 0),
        "RTX 3090 Ti": (24, 1008, 80, 0, 320, 0),
    },
    "NVIDIA Ada GPU architecture white paper, 2023": {
        "RTX 4080": (16, 717, 97.5, 194.9, 389.9, 0),
        "RTX 4080 SUPER": (16, 736, 104.4, 208.9, 417.7, 0),
        "RTX 4090": (24, 1008, 165.2, 330.3, 660.6, 0),
    },
    "NVIDIA RTX Blackwell architecture white paper, 2025": {
        "RTX 5070 Ti": (16, 896, 87.9, 175.8, 351.5, 703),
        "RTX 5080": (16, 960, 112.6, 225.1, 450.2, 900.4),
        "RTX 5090": (32, 1792, 209.5, 419, 838, 1676),
    },
}
_OTHERS: dict[str, dict[str, _Row]] = {
    "AMD Instinct MI200 data sheets, 2022": {
        "MI210": (64, 1638, 181, 0, 181, 0),
        # A card is two dies, each a GPU of its own to programs; the row is the card.
        "MI250": (128, 3277, 362.1, 0, 362.1, 0),
        "MI250X": (128, 3277, 383, 0, 383, 0),
    },
    "AMD Instinct MI300 data sheets, 2024": {
        "MI300A": (128, 5300, 980.6, 1961.2, 1961.2, 0),
        "MI300X": (192, 5300, 1307.4, 2614.9, 2614.9, 0),
        "MI325X": (256, 6000, 1307.4, 2614.9, 2614.9, 0),
    },
    "AMD Instinct MI350 data sheets, 2025": {
        "MI350X": (288, 8000, 2306.9, 4613.7, 4613.7, 9227.5),
        "MI355X": (288, 8000, 2516.6, 5033.2, 5033.2, 10066.3),
    },
    "Intel Gaudi 2 and Gaudi 3 white papers, 2024": {
        "Gaudi 2": (96, 2460, 432, 865, 0, 0),
        "Gaudi 3": (128, 3700, 1835, 1835, 0, 0),
    },
}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _gpu(name: str, row: _Row, source: str) -> Gpu:
    gib, gb_s, *tera = row
    rates = zip(("bf16", "fp8", "int8", "fp4"), tera, strict=True)
    flops = {precision: rate * 1e12 for precision, rate in rates if rate}
    return Gpu(
        name=name,
        memory_bytes=gib * GIB,
        bandwidth_bytes_s=gb_s * 1e9,
        flops=flops,
        source=source,
    )


GPUS: dict[str, Gpu] = {
    name: _gpu(name, row, source)
    for table in (_NVIDIA, _OTHERS)
    for source, rows in table.items()
    for name, row in rows.items()
}
# Which one is meant when a name leaves the variant open: the one that is rented most.
_ALIASES = {
    "V100": "V100 16GB",
    "V100 SXM2": "V100 16GB",
    "A100": "A100 80GB SXM",
    "A100 PCIe": "A100 80GB PCIe",
    "A100 SXM": "A100 80GB SXM",
    "A100 80GB": "A100 80GB SXM",
    "A100 40GB": "A100 40GB SXM",
    "A800": "A100 80GB SXM",
    "H100": "H100 SXM",
    "H100 HBM3": "H100 SXM",
    "H800": "H800 SXM",
    "H200": "H200 SXM",
    "H200 141GB": "H200 SXM",
    "GH200": "GH200 96GB",
    "GH200 480GB": "GH200 96GB",  # the 480 GB are the CPU's
    "A6000": "RTX A6000",
    "A5000": "RTX A5000",
    "A4000": "RTX A4000",
    "DGX Spark": "GB10",
    "RTX 6000 Ada Generation": "RTX 6000 Ada",
    "RTX PRO 6000 Blackwell": "RTX PRO 6000",
    "RTX PRO 6000 Blackwell Workstation": "RTX PRO 6000",
    "RTX PRO 6000 Blackwell Server": "RTX PRO 6000 Server",
    "3090": "RTX 3090",
    "3090 Ti": "RTX 3090 Ti",
    "4080": "RTX 4080",
    "4090": "RTX 4090",
    "5070 Ti": "RTX 5070 Ti",
    "5080": "RTX 5080",
    "5090": "RTX 5090",
    "MI300": "MI300X",
    "Gaudi2": "Gaudi 2",
    "HL-225": "Gaudi 2",
    "HL-325": "Gaudi 3",
}
# The predictor's constants were chosen by runs on these (evidence/): of which engines, each says.
MEASURED = frozenset({"H100 SXM", "H200 SXM"})
_BY_KEY = {_key(name): gpu for name, gpu in GPUS.items()} | {
    _key(alias): GPUS[name] for alias, name in _ALIASES.items()
}
# Words of a driver's or a cloud's name that say nothing of which GPU it is.
_EXTRA = re.compile(
    r"^(nvidia|amd|intel|instinct|geforce|tesla|corporation|radeon|habana)[-_ ]+"
    r"|[-_ ](edition|generation|gpu|tensor core|oam|hbm\d?e?|\d+gb hbm\d?e?|laptop)\b",
    re.IGNORECASE,
)
# nvidia-smi says SXM2, SXM4 or SXM5, of which a table needs one.
_SOCKET = re.compile(r"sxm\d", re.IGNORECASE)
CPU = "cpu"
_FIGURES = ("memory", "bandwidth", "bf16", "fp8", "int8", "fp4")  # a row, as a user writes it
_EXAMPLE = "memory=80,bandwidth=3350,bf16=989,fp8=1979"
# Weights up to about this size stay in a CPU's last cache from step to step, where it is faster
# than the memory by at least the next.
_KEPT_MIB = 24
_NEARER = 1.3


def gpus_of_text(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs of "h200,h100"; figures that follow one another describe one GPU.

    Raises:
        UsageError: there is none of a name, or one is named twice; see gpu_of, too.
    """
    names: list[str] = []
    for part in text.split(","):
        figure = part.partition("=")[0].strip().lower()
        last = names[-1] if names else ""
        begun = [one.partition("=")[0].strip().lower() for one in last.split(",") if "=" in one]
        if "=" in part and begun and figure not in begun:
            names[-1] += f",{part}"
        else:
            names.append(part.strip())
    if not all(names):
        raise UsageError(f"--gpu {text}: has an empty name; write names, e.g. h200,h100.")
    found: dict[str, Gpu] = {}
    for name in names:
        gpu = gpu_of(name)
        if gpu.name in found:
            raise UsageError(f"--gpu {text}: names {gpu.name} twice; name each GPU once.")
        found[gpu.name] = gpu
    return tuple(found.values())


def is_figure(name: str) -> bool:
    """Return whether a name is that of a figure by which a GPU is described."""
    return name.strip().lower() in _FIGURES


def gpu_of(name: str, field: str = "--gpu") -> Gpu:
    """Return what is known of a GPU by the name that people, clouds or its driver give it.

    "cpu" is the processor of this machine, measured once, see machine/peaks.py. One that is not
    in the table is described: "memory=80,bandwidth=3350,bf16=989", see _described. `field` is the
    flag that an error names.

    Raises:
        UsageError: there is none of that name, names the nearest; a description is wrong; or what
            the processor can do cannot be measured now.
    """
    if name.strip().lower() == CPU:
        try:
            return cpu_gpu(this_machine())
        except DynoError as error:
            raise UsageError(
                f"--gpu {name}: {error}. Try again, or describe it: --gpu {_EXAMPLE} (GiB, GB/s,"
                " dense TFLOP/s)."
            ) from None
    if "=" in name:
        return _described(name)
    for spelled in _spellings(name.strip()):
        if (found := _BY_KEY.get(_key(spelled))) is not None:
            return found
    raise UsageError(
        f"{field} {name}: no such GPU is known here.{closest(name, [*GPUS, CPU])} Another one is"
        f" described: --gpu {_EXAMPLE} (GiB, GB/s, dense TFLOP/s)."
    )


def _described(said: str) -> Gpu:
    """Read a GPU's figures: memory in GiB, bandwidth in GB/s, dense TFLOP/s by precision.

    Raises:
        UsageError: names what is wrong, and what would be right.
    """
    figures: dict[str, float] = {}
    for part in re.split("[,;]", said):  # within --what-if a comma begins the next change
        name, _, value = (word.strip().lower() for word in part.partition("="))
        if name not in _FIGURES:
            raise UsageError(
                f"--gpu {said}: {name!r} is none of {', '.join(_FIGURES)}, as in {_EXAMPLE}."
            )
        try:
            figures[name] = float(value)
        except ValueError:
            figures[name] = 0.0
        if not 0 < figures[name] < float("inf"):
            raise UsageError(f"--gpu {said}: {name} must be a number above 0, not {value!r}.")
    missing = [name for name in _FIGURES[:3] if name not in figures]
    if missing:
        raise UsageError(f"--gpu {said}: lacks {' and '.join(missing)}, as in {_EXAMPLE}.")
    row = tuple(figures.get(name, 0.0) for name in _FIGURES)
    return _gpu(said, row, "as described")  # type: ignore[arg-type]  # as many as a row has


def _spellings(name: str) -> list[str]:
    plain = name
    while (shorter := _EXTRA.sub("", plain).strip()) != plain:
        plain = shorter
    plain = _SOCKET.sub("SXM", plain)
    # "A100-SXM-80GB" is "A100 80GB SXM" here, "H100 80GB" is "H100".
    size = re.search(r"[-_ ](\d+) ?GB\b", plain, re.IGNORECASE)
    spelled = [name, plain, plain.replace("-SXM", "").replace(" SXM", "")]
    if size:
        bare = plain.replace(size[0], "")
        words = bare.replace("_", "-").replace(" ", "-").split("-")
        with_size = " ".join([words[0], f"{size[1]}GB", *words[1:]])
        spelled += [with_size, with_size.replace(" SXM", ""), bare]
    return spelled


def cpu_gpu(peaks: Peaks) -> Gpu:
    """Return a processor, as it was measured, as what an engine computes on."""
    kept = peaks.near_bytes_s > _NEARER * peaks.bytes_s
    return Gpu(
        name=CPU,
        memory_bytes=float(memory_bytes()),
        bandwidth_bytes_s=peaks.bytes_s,
        # Measured in 32 bits; a CPU that multiplies numbers of 16 bits takes twice as many at once.
        flops={"bf16": (1 + peaks.multiplies_bf16) * peaks.flops},
        near_bytes=_KEPT_MIB * 2.0**20 if kept else 0.0,
        near_bytes_s=peaks.near_bytes_s if kept else 0.0,
        number_bytes=2.0 if peaks.multiplies_bf16 else 4.0,
        cores=peaks.cores,
        measured=peaks.measured,
        source=f"measured on {peaks.measured[:10]}: {peaks.cpu}, {counted(peaks.cores, 'core')}",
    )
