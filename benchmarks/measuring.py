"""What the benchmark scripts share: memory of a process, and the machine's description."""

import platform
import resource

import torch


def peak_mb(device: torch.device) -> float:
    """Return the peak memory so far: of the GPU's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def describe(device: torch.device) -> str:
    """Return machine and versions, for the head of a table."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    return f"{name}{threads}; torch {torch.__version__}"
