"""Where tensors live, and what machine this is."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from lockforge.errors import ResourceError


def choose_device(wanted: str) -> str:
    """The device to work on: `auto` takes a GPU if there is one; `cpu`, `cuda` or `cuda:1` are
    taken at their word.

    On a GPU float32 is float32 from then on: torch's convolutions would round to TF32's ten bits
    otherwise.

    Raises: ResourceError: there is no such device here.

    >>> choose_device("cpu")
    'cpu'
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = ("cuda" if gpus else "cpu") if wanted == "auto" else wanted
    kind, _, number = chosen.partition(":")
    if chosen == "cpu":
        return chosen
    if kind == "cuda" and (number or "0").isdecimal() and int(number or "0") < gpus:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        return chosen
    raise ResourceError(
        f"there is no device {wanted!r} here: {gpus} CUDA device(s), torch {torch.__version__}",
        hint="use --device cpu or auto; a GPU needs its driver and a CUDA build of torch",
    )


def set_threads(count: int) -> None:
    """Let torch use so many CPU threads; another number may change the last digits of results."""
    torch.set_num_threads(count)


def describe() -> dict[str, str]:
    """Versions and hardware by name: python, lockforge, torch, numpy, cuda; machine, cpu, cores,
    threads, memory, gpu (or `none`).

    Timm's version is there where it was used.
    """
    found = {name: version(name) for name in ("lockforge", "torch", "numpy")}
    timm = sys.modules.get("timm")
    found |= {"timm": str(getattr(timm, "__version__", "unknown"))} if timm else {}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "python": platform.python_version(),
        **found,
        "cuda": torch.version.cuda or "none",
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": str(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "threads": str(torch.get_num_threads()),
        "memory": f"{gigabytes:.1f} GB",
        "gpu": gpu,
    }


def _cpu_name() -> str:
    """The processor's own name where Linux tells it."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"
