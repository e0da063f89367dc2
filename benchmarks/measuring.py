"""What the benchmark scripts share: the machine's description."""

import platform

import torch


def describe(device: torch.device) -> str:
    """Return machine and versions, for the head of a table."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    return f"{name}{threads}; torch {torch.__version__}"
