"""How much memory a weight lock takes: growth of the process while VGG-11 is locked for a few
steps, as a multiple of its weights.

MNIST and USPS at 16 px, 100 images a class, batch 64; a lock of so few steps is worth nothing,
and takes as much memory as any other. What torch imports at the first training of a process is
imported before the count begins.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from lockforge.data.roles import read_set
from lockforge.engine.fit import TensorFeed, fit
from lockforge.models.networks import build, state
from lockforge.prune.stage import prune_model
from lockforge.randomness import torch_generator
from lockforge.recipe import DataRecipe, FitRecipe, PruneRecipe
from lockforge.records import NamedArchitecture
from lockforge.runs import Runs
from lockforge.train.stage import adopt_model
from tests.benchmarks.line import arguments, write_line
from tests.benchmarks.loop import SHARED

SHORT = FitRecipe(
    steps=3, batch_size=64, optimizer="adam", learning_rate=1e-3, schedule="constant", select="last"
)


def main() -> None:
    """Lock, watch."""
    given = arguments(__doc__, repeats=1)
    if not SHARED.is_file():
        sys.exit(
            f"{SHARED.parent} is not there: set LOCKFORGE_DATA to a folder with images/mnist.npz "
            "and images/usps.npz"
        )
    with tempfile.TemporaryDirectory() as folder:
        do = Runs(Path(folder), seed=0)
        data = DataRecipe(size=16, channels=1, limit_per_class=100)
        source, auxiliary = (
            read_set(str(SHARED.with_name(name)), data, do.files)
            for name in ("mnist.npz", "usps.npz")
        )
        architecture = NamedArchitecture(name="vgg11_bn-cifar", classes=10, shape=source.shape)
        weights = do.files.put_tensors(
            state(build(architecture, torch_generator(0, "benchmark", "memory")))
        )
        model = do(adopt_model, architecture, weights, source)
        fit(
            torch.nn.Linear(2, 2),
            TensorFeed(torch.eye(2), torch.arange(2)),
            SHORT,
            generator=torch_generator(0, "benchmark"),
        )
        before = _resident()
        highest, watching = [before], [True]

        def watch() -> None:
            while watching:
                highest[0] = max(highest[0], _resident())
                time.sleep(0.005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        recipe = PruneRecipe(method="ntp", rounds=2, fit=SHORT, recovery=SHORT, max_source_drop=1.0)
        do(prune_model, model, model, source, (auxiliary,), recipe)
        watching.clear()
        watcher.join()
    growth = highest[0] - before
    write_line(
        "prune_memory",
        given,
        {"weights_bytes": weights.size, "growth_bytes": growth, "times": growth / weights.size},
    )


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
