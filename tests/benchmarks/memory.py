"""How much memory a set takes that is larger than what is kept in memory: read, split, stored, then
one pass in shuffled batches.

Made-up images in an .npz file, decoded size as given. Counted is memory of the process's own
(RssAnon), sampled every 20 ms; pages of mapped files are the system's to drop.
"""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from lockforge.data.batches import load_pool
from lockforge.data.roles import read_set
from lockforge.files import Files
from lockforge.recipe import DataRecipe
from tests.benchmarks.line import arguments, write_line

COUNT, SIDE = 200_000, 64


def own_bytes() -> int:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this system does not say RssAnon")


def main() -> None:
    """Read, store, iterate; print the line."""
    given = arguments(__doc__, repeats=1)
    highest, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            highest[0] = max(highest[0], own_bytes())

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "set.npz"
        pixels = np.lib.format.open_memmap(
            Path(folder) / "x.npy", "w+", np.uint8, (COUNT, SIDE, SIDE, 3)
        )
        generator = np.random.default_rng(0)
        for start in range(0, COUNT, 1000):
            pixels[start : start + 1000] = generator.integers(
                256, size=(1000, SIDE, SIDE, 3), dtype=np.uint8
            )
        np.savez(place, x=pixels, y=np.arange(COUNT) % 10)
        del pixels
        before = own_bytes()
        watcher = threading.Thread(target=sample)
        watcher.start()
        started = time.perf_counter()
        files = Files(Path(folder) / "files")
        images = read_set(str(place), DataRecipe(), files)
        stored = time.perf_counter()
        pool = load_pool(images, "train", files)
        total = sum(
            int(labels.sum()) for _, labels in pool.batches(256, torch.Generator().manual_seed(0))
        )
        passed = time.perf_counter()
        done.set()
        watcher.join()
    size = COUNT * SIDE * SIDE * 3
    figures = {
        "decoded_bytes": size,
        "peak_own_bytes": highest[0] - before,
        "share": (highest[0] - before) / size,
    }
    write_line(
        "memory",
        given,
        figures | {"read_s": stored - started, "pass_s": passed - stored, "labels": total},
    )


if __name__ == "__main__":
    main()
