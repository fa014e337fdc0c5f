"""What this machine has, and what will not work on it."""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

CORE = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "pillow",
    "onnx",
    "onnxscript",
    "typer",
    "pydantic",
    "cryptography",
    "jinja2",
)
EXTRAS = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu", "sign": "model-signing", "probes": "timm"}
ENOUGH_DISK = 2 * 1024**3


class Finding(NamedTuple):
    """One line: `ok`, `note` (something is missing that is not needed) or `FAULT` (something will
    fail).
    """

    state: str
    name: str
    said: str


def installed(package: str) -> str | None:
    """The version of a package, or none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def examine(runs: Path) -> tuple[Finding, ...]:
    """Look at packages, devices and the disk that holds `runs`."""
    findings = []
    for package in CORE:
        found = installed(package)
        findings.append(
            Finding(
                "ok" if found else "FAULT", package, found or "not installed: pip install lockforge"
            )
        )
    return (*findings, *_extras(), *_devices(), _disk(runs))


def _extras() -> list[Finding]:
    found = {extra: installed(package) for extra, package in EXTRAS.items()}
    lines = [
        Finding(
            "ok" if found[extra] else "note",
            package,
            found[extra] or f"not installed: pip install 'lockforge[{extra}]'",
        )
        for extra, package in EXTRAS.items()
    ]
    if found["cpu"] and found["gpu"]:
        lines.append(
            Finding(
                "FAULT",
                "two onnxruntimes",
                "the CUDA provider vanishes silently: pip uninstall onnxruntime onnxruntime-gpu, "
                "then install one",
            )
        )
    if not found["cpu"] and not found["gpu"]:
        lines.append(
            Finding(
                "FAULT",
                "no onnxruntime",
                "ONNX files cannot be compared with the weights: pip install 'lockforge[cpu]'",
            )
        )
    return lines


def _devices() -> list[Finding]:
    from lockforge.engine.device import describe

    described = describe()
    gpu = described.get("gpu", "none")
    return [
        Finding(
            "ok", "cpu", f"{described.get('cpu', 'unknown')}, {described.get('cores', '?')} cores"
        ),
        Finding(
            "note" if gpu == "none" else "ok",
            "gpu",
            "none: --device cpu is used" if gpu == "none" else gpu,
        ),
    ]


def _disk(runs: Path) -> Finding:
    place = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    said = f"{free / 1024**3:.1f} GiB free where {runs} lies"
    return Finding(
        "ok" if free >= ENOUGH_DISK else "FAULT",
        "disk",
        said if free >= ENOUGH_DISK else f"{said}: less than 2 GiB",
    )
