"""Batches per second of our training loop against a plain DataLoader loop: same network, data,
augmentation, optimiser and schedule.

4,096 colour images of 32 px (CIFAR-10 where it is, else noise), the skeleton of recipe
`cifar10-cpu`, batches of 128, one pass a repeat. The plain loop crops, mirrors and normalises each
image in the Dataset, in torch; with no and with two worker processes, kept alive between passes.
`channels_last` is the plain loop on a network whose kernels have the memory order that
`spaces.build` gives them; the other plain loops have torch's usual order.

`--trial compile` asks instead whether torch.compile pays: one cell at 32 px, forward and backward,
64 images; what the first step takes more, and after how many steps that is earned back. `--trial
prefetch` asks whether a thread pays that draws the next batches while one is worked on: noise of 32
px in a file whose pages are thrown out of memory before every pass, as those of a set larger than
memory are.
"""

import argparse
import math
import os
import queue
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from lockforge.data.batches import Pool
from lockforge.engine.fit import Feed, RunContext, fit
from lockforge.engine.schedule import learning_rate
from lockforge.files import Files
from lockforge.models.networks import CellBlock, build
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe
from lockforge.records import Architecture, Cell
from tests.benchmarks.line import arguments, by_turns, idle, write_line

COUNT = 4096
RECIPE = FitRecipe(epochs=1, batch_size=128, learning_rate=0.1, crop=4, flip=True)
CELL = Cell.parse(
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
)
ARCHITECTURE = Architecture(
    space="nasbench201",
    cell=CELL,
    stem_channels=16,
    cells_per_stage=1,
    classes=10,
    shape=(3, 32, 32),
)
NARROW = ARCHITECTURE.model_copy(
    update={"stem_channels": 4}
)  # a small network waits for its data longest
STREAMED, STEPS = 32768, 8  # images, 0.1 GB
SHARED = (
    Path(os.environ.get("LOCKFORGE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "images"
    / "cifar10.npz"
)
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Images augmented one by one, as data sets usually are."""

    def __init__(self, pool: Pool) -> None:
        self.images, self.labels = pool.images, pool.labels
        self.mean, self.std = pool.mean.view(3, 1, 1), pool.std.view(3, 1, 1)

    def __len__(self) -> int:
        """Images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image: padded, cropped, perhaps mirrored, scaled, normalised."""
        padded = functional.pad(self.images[index], (4, 4, 4, 4))
        top, left, mirror = (int(torch.randint(most, ())) for most in (9, 9, 2))
        image = padded[:, top : top + 32, left : left + 32]
        image = image.flip(2) if mirror else image
        return (image.float() / 255 - self.mean) / self.std, int(self.labels[index])


def images() -> tuple[Pool, str]:
    """The pool, and what it is."""
    if SHARED.is_file():
        with np.load(SHARED) as stored:
            images, labels = stored["x_train"][:COUNT], stored["y_train"][:COUNT]
        return _pool(
            torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(labels).long().flatten(),
        ), "cifar10"
    draws = torch_generator(0, "benchmark", "noise")
    images = torch.randint(256, (COUNT, 3, 32, 32), generator=draws).to(torch.uint8)
    return _pool(images, torch.randint(10, (COUNT,), generator=draws)), "noise"


def _pool(images: Tensor, labels: Tensor) -> Pool:
    return Pool(images, labels, torch.tensor(MEAN), torch.tensor(STD), 10)


def network(*, usual_order: bool) -> nn.Module:
    """The same network each time; with torch's usual memory order, or as it is built."""
    net = build(ARCHITECTURE, torch_generator(0, "benchmark", "network"))
    return net.to(memory_format=torch.contiguous_format) if usual_order else net


def ours(pool: Pool, device: str) -> float:
    """One pass through `fit`; the mean loss."""
    fitted = fit(
        network(usual_order=False),
        pool,
        RECIPE,
        generator=torch_generator(0, "benchmark"),
        context=RunContext(device=device),
    )
    return fitted.history[0].loss


def plain(batches: Callable[[], Any], device: str, *, usual_order: bool) -> float:
    """One pass as it is usually written; the mean loss."""
    net = network(usual_order=usual_order).to(device).train()
    groups = [
        {
            "params": [p for p in net.parameters() if p.dim() > 1],
            "weight_decay": RECIPE.weight_decay,
        },
        {"params": [p for p in net.parameters() if p.dim() <= 1]},
    ]
    optimizer = torch.optim.SGD(
        groups, lr=RECIPE.learning_rate, momentum=RECIPE.momentum, nesterov=True
    )
    drawn = batches()
    total, steps = 0.0, len(drawn)
    for step, (images, labels) in enumerate(drawn):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, RECIPE)
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / steps


def compiled(given: argparse.Namespace) -> None:
    """A cell as it is against the same compiled; the processor's own seconds beside the clock's."""
    cell = (
        next(part for part in network(usual_order=False).modules() if isinstance(part, CellBlock))
        .train()
        .to(given.device)
    )
    images = torch.randn(64, 16, 32, 32, generator=torch_generator(0, "benchmark", "noise")).to(
        given.device
    )
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    quick = cast("nn.Module", torch.compile(cell))

    def step(way: nn.Module) -> tuple[float, float]:
        idle(given.device)
        started, worked = time.perf_counter(), time.process_time()
        way(images).square().mean().backward()
        idle(given.device)
        return time.perf_counter() - started, time.process_time() - worked

    with tempfile.TemporaryDirectory() as nothing_compiled_before:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = nothing_compiled_before
        first = step(quick)
    step(cell)
    taken = [(step(cell), step(quick)) for _ in range(given.repeats)]
    plain, fast, plain_cpu, fast_cpu = (
        statistics.median(one[way][what] for one in taken) for what in (0, 1) for way in (0, 1)
    )
    figures = {
        "first_step_s": first[0],
        "first_step_cpu_s": first[1],
        "plain_s": plain,
        "compiled_s": fast,
    }
    figures |= {"plain_cpu_s": plain_cpu, "compiled_cpu_s": fast_cpu, "speedup": plain / fast}
    figures["steps_to_earn_it_back"] = first[0] / (plain - fast) if plain > fast else math.inf
    write_line("loop_compile", given, {"images": 64, "channels": 16, "side": 32, **figures})


class Ahead:
    """A feed whose next batches are drawn by a thread: no further than the pass, so that its
    generator ends where it would have.
    """

    def __init__(self, feed: Feed, depth: int = 2) -> None:
        self.feed, self.depth = feed, depth

    def __len__(self) -> int:
        """Examples."""
        return len(self.feed)

    def batches(self, *given: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass, of batches that are ready."""
        ready: queue.Queue[tuple[Tensor, Tensor] | None] = queue.Queue(self.depth)

        def draw() -> None:
            for batch in self.feed.batches(*given, **options):
                ready.put(batch)
            ready.put(None)

        threading.Thread(target=draw, daemon=True).start()
        while (batch := ready.get()) is not None:
            yield batch


def prefetched(given: argparse.Namespace) -> None:
    """Passes over a mapped file, with and without the thread; the same loss first."""
    draws = torch_generator(0, "benchmark", "noise")
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        images = torch.randint(
            256, (STREAMED, 3, 32, 32), generator=draws, dtype=torch.uint8
        ).numpy()
        labels = torch.randint(10, (STREAMED,), generator=draws)
        recipe = RECIPE.model_copy(update={"epochs": None, "steps": STEPS})
        ref = files.put_arrays({"images": images})

        def way(*, ahead: bool) -> float:
            with files.path(ref).open("rb") as file:
                os.posix_fadvise(
                    file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED
                )  # keeps what is mapped: the last pass's mapping is gone
            pool = Pool(
                torch.from_numpy(files.map_arrays(ref)["images"]),
                labels,
                torch.tensor(MEAN),
                torch.tensor(STD),
                10,
            )
            net = build(NARROW, torch_generator(0, "benchmark", "network"))
            draw = torch_generator(0, "benchmark")
            return (
                fit(
                    net,
                    Ahead(pool) if ahead else pool,
                    recipe,
                    generator=draw,
                    context=RunContext(given.device),
                )
                .history[-1]
                .loss
            )

        ways = {"streamed": partial(way, ahead=False), "ahead": partial(way, ahead=True)}
        losses = {name: one() for name, one in ways.items()}
        if len(set(losses.values())) > 1:
            raise SystemExit(f"the feeds do not give the same batches: {losses}")
        seconds = by_turns(ways, given.repeats, given.device)
    figures: dict[str, object] = {f"{name}_s": value for name, value in seconds.items()}
    figures |= {
        "images": STREAMED,
        "steps": STEPS,
        "batch_size": RECIPE.batch_size,
        "speedup": seconds["streamed"] / seconds["ahead"],
    }
    write_line("loop_prefetch", given, figures)


def main() -> None:
    """Same losses first, then the clock."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--trial", choices=("compile", "prefetch"))
    options.add_argument(
        "--images", type=int, default=COUNT, help="of a pass; the losses of very few differ more"
    )
    asked, sys.argv[1:] = options.parse_known_args()
    given = arguments(__doc__, repeats=7)
    if asked.trial:
        (compiled if asked.trial == "compile" else prefetched)(given)
        return
    pool, data = images()
    pool = pool.take(torch.arange(asked.images))
    order = torch_generator(0, "benchmark", "order")
    loader = partial(
        DataLoader,
        PlainImages(pool),
        RECIPE.batch_size,
        shuffle=True,
        drop_last=True,
        generator=order,
    )
    alone, helped = loader(), loader(num_workers=2, persistent_workers=True)
    device = given.device
    here = pool.to(device)
    ways: dict[str, Callable[[], float]] = {
        "ours": partial(ours, here, device),
        "plain_0_workers": partial(plain, lambda: iter(alone), device, usual_order=True),
        "plain_2_workers": partial(plain, lambda: iter(helped), device, usual_order=True),
        "channels_last_0_workers": partial(plain, lambda: iter(alone), device, usual_order=False),
    }
    losses = {name: way() for name, way in ways.items()}  # also the warm-up
    if max(losses.values()) - min(losses.values()) > 0.1:
        raise SystemExit(f"the loops do not train alike: mean losses of the first pass {losses}")
    batches = asked.images // RECIPE.batch_size
    rates = {
        name: batches / seconds for name, seconds in by_turns(ways, given.repeats, device).items()
    }
    figures: dict[str, object] = {
        "data": data,
        "images": asked.images,
        "batch_size": RECIPE.batch_size,
        "batches": batches,
    }
    figures |= {f"loss_{name}": float(loss) for name, loss in losses.items()}
    figures |= {f"{name}_batches_per_s": rate for name, rate in rates.items()}
    figures["speedup"] = rates["ours"] / max(rates["plain_0_workers"], rates["plain_2_workers"])
    figures["speedup_same_memory_order"] = rates["ours"] / rates["channels_last_0_workers"]
    write_line("loop", given, figures)


if __name__ == "__main__":
    main()
