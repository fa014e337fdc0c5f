"""Our zero-cost proxies beside the published table's (NAS-Bench-Suite-Zero), CIFAR-10, published
skeleton, batch 64.

Random cells of the 9,445 in which every operation is reachable. Printed beside each Spearman
correlation: the least that is aimed at, and the table's own ceiling, the correlation of the table
with itself between pairs of isomorphic cells. Needs the shared tables and images.

Convolutions are drawn as torch does by default, uniform with variance 1 / (3 fan-in), because the
table's networks were: ours have six times that. Batch norm takes it out of most proxies but not out
of grasp, since shortcuts and head have none, nor out of synflow. `--ours` keeps our own. With
`--difference` also grasp by a difference of gradients, beside the table and the exact one.

    python -m tests.benchmarks.proxy_parity [--cells 300] [--ours] [--difference] [--save]
"""

import argparse
import csv
import gzip
import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn

from lockforge.models.networks import build
from lockforge.randomness import numpy_generator, torch_generator
from lockforge.records import Cell
from lockforge.search._data_free import DATA_FREE, score_data_free
from lockforge.search._proxies import PROXIES, score_network
from lockforge.spaces import nasbench201
from lockforge.spaces.isomorphism import network_key
from tests.benchmarks.line import FOLDER, add_device
from tests.conftest import SHARED

WANTED = {
    "flops": 1.0,
    "params": 0.999,
    "zen": 0.97,
    "nwot": 0.97,
    "synflow": 0.97,
    "fisher": 0.93,
    "snip": 0.93,
    "grad_norm": 0.93,
    "l2_norm": 0.90,
    "jacov": 0.88,
    "grasp": 0.65,
}
FAILED = -1e8
BATCH = 64


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation with mean ranks for ties."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def both_say(mine: Sequence[float], theirs: Sequence[float]) -> list[tuple[float, float]]:
    """The pairs in which neither value is missing or failed."""
    return [
        pair
        for pair in zip(mine, theirs, strict=True)
        if np.isfinite(pair).all() and min(pair) > FAILED
    ]


def number(value: float | None) -> float:
    """NaN for a missing value."""
    return float("nan") if value is None else value


def table() -> dict[str, dict[str, float]]:
    """The published proxies of CIFAR-10 by cell."""
    with gzip.open(SHARED / "nas" / "nasbench201_zcp.csv.gz", "rt") as lines:
        rows = [row for row in csv.DictReader(lines) if row["dataset"] == "cifar10" and row["snip"]]
    return {row["arch_str"]: {name: float(row[name] or "nan") for name in WANTED} for row in rows}


def ceiling(
    published: dict[str, dict[str, float]], name: str, generator: np.random.Generator
) -> float:
    """Spearman between two cells that are the same network, one pair for each network that is in
    the table twice.
    """
    same: dict[str, list[str]] = defaultdict(list)
    for text in published:
        same[network_key(Cell.parse(text), "nasbench201")].append(text)
    pairs = [generator.choice(texts, 2, replace=False) for texts in same.values() if len(texts) > 1]
    values = np.array([[published[a][name], published[b][name]] for a, b in pairs])
    values = values[(values > FAILED).all(1) & np.isfinite(values).all(1)]
    return spearman(values[:, 0].tolist(), values[:, 1].tolist())


def as_torch_draws(network: nn.Module, generator: torch.Generator) -> None:
    """Convolutions as torch draws them by default; linear layers and batch norm are so already."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)


def main() -> None:
    """Score, correlate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours", action="store_true", help="networks as we draw them")
    parser.add_argument("--difference", action="store_true", help="grasp also by a difference")
    parser.add_argument("--save", action="store_true")
    add_device(parser)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    published = table()
    generator = numpy_generator(0, "proxy parity")
    chosen = generator.choice(sorted(published), given.cells, replace=False).tolist()
    with np.load(SHARED / "images" / "cifar10.npz") as stored:
        rows = generator.choice(len(stored["x_train"]), BATCH, replace=False)
        raw, labels = stored["x_train"][rows], torch.from_numpy(stored["y_train"][rows])
    images = torch.from_numpy(raw).permute(0, 3, 1, 2).float().div(255)
    images = (images - torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)) / torch.tensor(
        [0.247, 0.2435, 0.2616]
    ).view(1, 3, 1, 1)

    images, labels = images.to(given.device), labels.to(given.device)

    ours: dict[str, list[float]] = defaultdict(list)
    differences: list[float] = []
    started = time.perf_counter()
    for at, text in enumerate(chosen):
        network = build(
            nasbench201.published(10, (3, 32, 32), Cell.parse(text)),
            torch_generator(0, "proxy parity", text),
        )
        if not given.ours:
            as_torch_draws(network, torch_generator(0, "proxy parity", "torch", text))
        network.to(given.device)
        scores = score_network(network, images, labels) | score_data_free(
            network, (3, 32, 32), torch_generator(0, "zen", text)
        )
        for name in (*PROXIES, *DATA_FREE):
            ours[name].append(number(scores[name]))
        if given.difference:
            differences.append(
                number(score_network(network, images, labels, grasp="difference")["grasp"])
            )
        if at % 20 == 19:
            print(
                f"{at + 1} cells, {(time.perf_counter() - started) / (at + 1):.2f} s each",
                flush=True,
            )

    figures: dict[str, dict[str, float]] = {}
    for name, least in WANTED.items():
        pairs = both_say(ours[name], [published[text][name] for text in chosen])
        found = spearman(*zip(*pairs, strict=True))
        figures[name] = {
            "spearman": round(found, 4),
            "wanted": least,
            "ceiling": round(ceiling(published, name, generator), 4),
            "cells": len(pairs),
        }
        print(
            f"{name:<10} {found:7.4f}  wanted {least:5.3f}  table with itself "
            f"{figures[name]['ceiling']:7.4f}  {len(pairs)} cells"
        )
    line = {
        "bench": "proxy_parity",
        "date": datetime.now(UTC).date().isoformat(),
        "device": given.device,
        "cells": given.cells,
        "batch": BATCH,
    }
    line |= {"initialisation": "ours" if given.ours else "torch", "proxies": figures}
    if given.difference:
        others = {"exact": ours["grasp"], "table": [published[text]["grasp"] for text in chosen]}
        pairs_with = {name: both_say(differences, values) for name, values in others.items()}
        line["grasp_by_difference"] = {
            f"with_{name}": {
                "spearman": round(spearman(*zip(*pairs, strict=True)), 5),
                "cells": len(pairs),
            }
            for name, pairs in pairs_with.items()
        }
        print("grasp by difference", line["grasp_by_difference"])
    if given.save:
        with (FOLDER / "proxy_parity.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
