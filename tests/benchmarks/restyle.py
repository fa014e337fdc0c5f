"""How good images made of the source are as a stand-in for a thief's task, against real images
of it.

Source: MNIST (or `--source`), grey, 16 px. A cell network is trained on it, and each stand-in then
drives a copy of it away from its own classes while the source's cross-entropy is kept: the terms of
non-transferable pruning without the pruning, as many steps for all. `source` stands in for itself,
with both weights at zero, and shows what these steps do alone. Then a thief with other digits: a
linear probe in closed form on all his images (batch norms re-estimated), and fine-tuning of
everything on 10 images a class, the better of two learning rates on test, which is good to him
and alike for all starts. Kinds and strengths were chosen by MNIST and USPS.
"""

import argparse
import copy
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from lockforge.data.batches import Batch, Pool, few, load_pool
from lockforge.data.roles import read_set
from lockforge.engine.evaluate import accuracy, logits_of, reestimate_batch_norm
from lockforge.engine.fit import RunContext, fit
from lockforge.files import Files
from lockforge.models.networks import CellNetwork, build
from lockforge.prune.restyle import KINDS, SETS, Kind, restyled
from lockforge.randomness import torch_generator
from lockforge.recipe import DataRecipe, FitRecipe
from lockforge.records import Architecture, Cell
from tests.benchmarks.line import add_device, write_line
from tests.benchmarks.loop import SHARED

CELL = Cell.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
ALPHA, BOUND, LAMBDA = (
    0.1,
    10.0,
    5.0,
)  # cross-entropy driven up, nats it is driven to, share of scatter between classes driven down
STEPS, BATCH = 200, 63
DIVISIONS: dict[str, tuple[tuple[Kind, ...], ...]] = {
    "restyled": SETS,
    "restyled-one-set": (KINDS,),
    "restyled-each": tuple((kind,) for kind in KINDS),
    **{f"restyled-{kind}": ((kind,),) for kind in KINDS},
}
REAL = ("mnist", "usps", "mnistm")
STAND_INS = ("reference", "empty", "source", *REAL, *DIVISIONS)


def main() -> None:
    """Train, drive away, steal, for each seed and stand-in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--save", action="store_true", help="append the line to docs/benchmarks/restyle.jsonl"
    )
    parser.add_argument("--source", default="mnist", choices=REAL)
    parser.add_argument(
        "--stand-ins",
        nargs="+",
        default=["reference", "empty", "source", "usps", "restyled"],
        choices=STAND_INS,
    )
    parser.add_argument("--thieves", nargs="+", default=["usps", "mnistm"], choices=REAL)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--note", help="what else to know of this run, such as a machine that had other work"
    )
    add_device(parser)
    given = parser.parse_args()
    given.repeats = 1
    torch.set_num_threads(given.threads)
    if not SHARED.is_file():
        sys.exit(
            f"{SHARED.parent} is not there: set LOCKFORGE_DATA to a folder with "
            "images/mnist.npz, usps.npz and mnistm.npz"
        )
    with tempfile.TemporaryDirectory() as folder:
        pools = read_pools(
            given.source,
            {*given.thieves, *({*REAL} & {*given.stand_ins})},
            Files(Path(folder) / "files"),
        )
    pools = {
        name: (train.to(given.device), test.to(given.device))
        for name, (train, test) in pools.items()
    }
    source, test = pools[given.source]
    figures: dict[str, object] = {
        "source": given.source,
        "alpha": ALPHA,
        "lambda": LAMBDA,
        "steps": STEPS,
        "seeds": given.seeds,
    }
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in given.stand_ins}
    for seed in given.seeds:
        reference = trained(source, seed)
        for name in given.stand_ins:
            network = stood_in(name, reference, source, pools, seed)
            thieves = {thief: pools[thief] for thief in given.thieves}
            for figure, value in figures_of(network, test, thieves, seed).items():
                rows[name].setdefault(figure, []).append(value)
            print(
                f"seed {seed} {name:22s} "
                + "  ".join(f"{figure} {values[-1]:.3f}" for figure, values in rows[name].items()),
                flush=True,
            )
    write_line(
        "restyle", given, figures | {"seconds_for_10000": seconds(source), "stand_ins": rows}
    )


def read_pools(source: str, names: set[str], files: Files) -> dict[str, tuple[Pool, Pool]]:
    """Training and test images of each set, grey, 16 px, normalised as the source is."""
    data = DataRecipe(size=16, channels=1)
    sets = {
        name: read_set(str(SHARED.with_name(f"{name}.npz")), data, files)
        for name in sorted({source, *names})
    }
    pools = {
        name: (load_pool(images, "train", files), load_pool(images, "test", files))
        for name, images in sets.items()
    }
    ours = pools[source][0]
    return {
        name: (
            Pool(a.images.clone(), a.labels, ours.mean, ours.std, 10),
            Pool(b.images.clone(), b.labels, ours.mean, ours.std, 10),
        )
        for name, (a, b) in pools.items()
    }


def empty(seed: int, purpose: str) -> CellNetwork:
    """A network without training."""
    architecture = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=4,
        cells_per_stage=1,
        classes=10,
        shape=(1, 16, 16),
    )
    return build(architecture, torch_generator(seed, "benchmark", "restyle", purpose))


def trained(source: Pool, seed: int) -> CellNetwork:
    """The reference: 300 steps on the source."""
    network = empty(seed, "reference")
    recipe = FitRecipe(
        steps=300, batch_size=64, optimizer="adam", learning_rate=0.01, select="last"
    )
    fit(
        network,
        source,
        recipe,
        generator=torch_generator(seed, "benchmark", "restyle", "batches"),
        context=RunContext(_place(source)),
    )
    return network


def stood_in(
    name: str, reference: CellNetwork, source: Pool, pools: dict[str, tuple[Pool, Pool]], seed: int
) -> CellNetwork:
    """The reference, an empty network, or the reference driven away from a stand-in."""
    if name == "reference":
        return reference
    if name == "empty":
        return empty(seed, "empty").to(_place(source))
    if name == "source":
        return driven(reference, source, [source], seed, alpha=0.0, weight=0.0)
    if name in pools:
        return driven(reference, source, [pools[name][0]], seed)
    generator = torch_generator(seed, "benchmark", "restyle", "pictures")
    return driven(
        reference,
        source,
        [restyled(source, generator, kinds=kinds) for kinds in DIVISIONS[name]],
        seed,
    )


def driven(
    reference: CellNetwork,
    source: Pool,
    auxiliary: Sequence[Pool],
    seed: int,
    *,
    alpha: float = ALPHA,
    weight: float = LAMBDA,
) -> CellNetwork:
    """A copy trained on CE_source - alpha min(CE_auxiliary, bound) + lambda tr S_b / tr S_w, the
    mean over auxiliary sets.
    """
    network = copy.deepcopy(reference).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    ours = _endless(source, BATCH, seed, "source")
    theirs = [
        _endless(pool, BATCH // len(auxiliary), seed, f"auxiliary-{at}")
        for at, pool in enumerate(auxiliary)
    ]
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * (1 + math.cos(math.pi * step / STEPS))
        x, y = next(ours)
        loss = functional.cross_entropy(network(x), y)
        drawn = [next(feed) for feed in theirs]
        features = torch.split(
            network.features(torch.cat([u for u, _ in drawn])), [len(u) for u, _ in drawn]
        )
        for f, (_, v) in zip(features, drawn, strict=True):
            away = functional.cross_entropy(network.head(f), v).clamp_max(BOUND)
            loss = loss + (weight * scatter_ratio(f, v) - alpha * away) / len(drawn)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    reestimate_batch_norm(network, source, device=_place(source))
    return network.eval()


def _endless(pool: Pool, size: int, seed: int, name: str) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from pool.batches(size, torch_generator(seed, "benchmark", "restyle", name, epoch))
        epoch += 1


def scatter_ratio(features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Scatter between classes over that within, tr S_b / tr S_w, of features of length 1; classes
    that do not occur count for nothing.
    """
    f = functional.normalize(features, dim=1)
    chosen = functional.one_hot(labels).float()
    counts = chosen.sum(0)
    means = chosen.T @ f / counts.clamp_min(1)[:, None]
    between = (counts[:, None] * (means - f.mean(0)).square()).sum()
    return between / ((f - means[labels]).square().sum() + 1e-6)


def figures_of(
    network: CellNetwork, source: Pool, thieves: dict[str, tuple[Pool, Pool]], seed: int
) -> dict[str, float]:
    """Source accuracy, and for each thief the scatter of his classes, the linear probe and the
    fine-tuning.
    """
    device = _place(source)
    found = {"source": accuracy(*logits_of(network, source, device=device))}
    for name, (train, test) in thieves.items():
        some = train.take(few(train, 10, torch_generator(seed, "benchmark", "restyle", "thief")))
        known = copy.deepcopy(network)
        reestimate_batch_norm(known, train.take(torch.arange(min(len(train), 2048))), device=device)
        seen, asked = (_features(known, pool) for pool in (train, test))
        found[f"{name} scatter"] = float(scatter_ratio(seen, train.labels))
        found[f"{name} probe"] = _probe(seen, train.labels, asked, test.labels)
        found[f"{name} tuned"] = max(
            _tuned(network, some, test, rate, seed) for rate in (3e-3, 1e-2)
        )
    return found


@torch.no_grad()
def _features(network: CellNetwork, pool: Pool) -> Float[Tensor, "n d"]:
    return torch.cat([network.eval().features(x) for x, _ in pool.batches(512, None)])


def _probe(seen: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> float:
    """Ridge regression onto the classes, penalty 1e-3 of the variance."""
    mean, std = seen.mean(0), seen.std(0) + 1e-4
    x, z = (
        torch.cat([(f - mean) / std, torch.ones(len(f), 1, device=f.device)], 1).double()
        for f in (seen, asked)
    )
    weights = torch.linalg.solve(
        x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1], device=x.device),
        x.T @ functional.one_hot(labels, 10).double(),
    )
    return accuracy(z @ weights, truth)


def _tuned(network: CellNetwork, some: Pool, test: Pool, rate: float, seed: int) -> float:
    """All weights and a new head, 40 steps."""
    own = copy.deepcopy(network)
    torch.nn.init.zeros_(own.head.weight)
    torch.nn.init.zeros_(own.head.bias)
    reestimate_batch_norm(own, some, device=_place(some))
    recipe = FitRecipe(steps=40, batch_size=64, optimizer="adam", learning_rate=rate, select="last")
    fit(
        own,
        some,
        recipe,
        generator=torch_generator(seed, "benchmark", "restyle", "tuning"),
        context=RunContext(_place(some)),
    )
    return accuracy(*logits_of(own, test, device=_place(some)))


def _place(pool: Pool) -> str:
    return str(pool.labels.device)


def seconds(source: Pool) -> float:
    """Of all kinds on 10,000 images."""
    started = time.perf_counter()
    restyled(
        source.take(torch.arange(10_000) % len(source)),
        torch_generator(0, "benchmark", "restyle", "seconds"),
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
