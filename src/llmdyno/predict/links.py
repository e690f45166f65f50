"""How fast GPUs of one server send to one another: bytes a second of one GPU in one direction.

NVIDIA's data sheets say both directions together. An exchange between GPUs over PCIe has the bus
for itself here; a host's bridges may give less.
"""

_PCIE_3, _PCIE_4, _PCIE_5 = 16e9, 32e9, 64e9  # 16 lanes
_NVLINK = 450e9  # H100 data sheet; also where nothing is known

# By how a name begins; the longest beginning counts.
_LINKS = {
    "V100": 150e9,
    "T4": _PCIE_3,
    "A10": _PCIE_4,
    "A30": _PCIE_4,
    "A40": _PCIE_4,
    "A100 40GB SXM": 300e9,
    "A100 80GB SXM": 300e9,
    "A100": _PCIE_4,
    "L": _PCIE_4,
    "GB10": 25e9,  # its network card
    "RTX": _PCIE_4,
    "RTX PRO": _PCIE_5,
    "RTX 50": _PCIE_5,
    "H100 PCIe": _PCIE_5,
    "H100 NVL": 300e9,
    "H800": 200e9,
    "B100": 900e9,
    "B200": 900e9,
    "B300": 900e9,
    "GB200": 900e9,
    "GB300": 900e9,
}


def link_bytes_s(gpu: str) -> float:
    """Return what a GPU of this name sends to others, in bytes a second."""
    beginnings = [beginning for beginning in _LINKS if gpu.startswith(beginning)]
    return _LINKS[max(beginnings, key=len)] if beginnings else _NVLINK


def gpus_together(gpu: str) -> int:
    """Return how many GPUs of this name one host, or one NVLink domain, has at most."""
    return 72 if gpu in ("GB200", "GB300") else 8
