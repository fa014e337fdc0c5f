"""What an audit costs, attacker by attacker, and which attackers get furthest with networks that
are locked.

Source: digits of computer fonts; target: 10,000 MNIST digits, both grey and 16 px. A cell network
trained on the source is the reference. Locked stand-ins, until pruning is a stage: `pruned` keeps
the largest tenth of its weights and is trained on; `damaged` is, besides, driven away from the
target's labels while it is trained on (cross-entropy of the source less that of the target,
bounded), zeros held at zero. Every start meets the suite with equal budgets; the line holds seconds
of one thread an attacker, and each attacker's mean test accuracy over the grid on each start,
chosen by validation. `--grid` and `--seeds` give way first where time is short; no attacker's
strength does.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from lockforge.audit.attackers import SUITES
from lockforge.audit.stage import attack_item, plan_items, set_scene
from lockforge.data.batches import Pool, load_pool
from lockforge.data.roles import read_set
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.engine.fit import RunContext, fit
from lockforge.evidence.curves import area, measure
from lockforge.files import Files
from lockforge.models.networks import CellNetwork, build, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe, DataRecipe, FitRecipe
from lockforge.records import Architecture, AttackPoint, Cell, Checkpoint, ImageSet, Subjects
from lockforge.runs import Work
from tests.benchmarks.line import add_device, idle, write_line
from tests.benchmarks.loop import SHARED

CELL = Cell.parse(
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
)
SPARSITY, AWAY, MOST = (
    0.9,
    1.0,
    5.0,
)  # share of zeros, weight and bound (nats) of the target's cross-entropy


def main() -> None:
    """Train, lock, attack, time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--save", action="store_true", help="append the line to docs/benchmarks/audit.jsonl"
    )
    parser.add_argument("--suite", default="standard", choices=sorted(SUITES))
    parser.add_argument("--lock", default="damaged", choices=("none", "pruned", "damaged"))
    parser.add_argument(
        "--grid", type=int, nargs="+", default=[5, 50, 0], help="images a class; 0 is all"
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--repeats", type=int, default=1, help="kept in the line; every place is attacked once"
    )
    parser.add_argument(
        "--steps", type=int, help="of a setting; the suite's own where it is not given"
    )
    parser.add_argument(
        "--starts", nargs="+", help="only these; nothing is said to be removed then"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="leave out the attacks with a larger budget"
    )
    parser.add_argument(
        "--note", help="what else to know of this run, such as a machine that had other work"
    )
    add_device(parser)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if not SHARED.is_file():
        sys.exit(
            f"{SHARED.parent} is not there: set LOCKFORGE_DATA to a folder with images/mnist.npz "
            "and images/chars74k_font_digits.npz"
        )
    with tempfile.TemporaryDirectory() as folder:
        work = Work(
            files=Files(Path(folder) / "files"), folder=Path(folder), seed=0, device=given.device
        )
        run(given, work)


def run(given: argparse.Namespace, work: Work) -> None:
    """The whole benchmark in a folder."""
    data = DataRecipe(size=16, channels=1)
    source, target = (
        read_set(str(SHARED.with_name(name)), data, work.files)
        for name in ("chars74k_font_digits.npz", "mnist.npz")
    )
    reference = trained(source, work)
    release = locked(reference, source, target, given.lock, work)
    models = [checkpoint(network, source, work) for network in (release, reference)]
    subjects = Subjects(release=models[0], twin=models[0], reference=models[1])
    recipe = AuditRecipe(
        suite=given.suite, images_per_class=tuple(given.grid), seeds=given.seeds, steps=given.steps
    )
    scene = set_scene(subjects, source, target, recipe, work=work)

    seconds: dict[str, float] = defaultdict(float)
    checks: dict[str, float] = defaultdict(float)
    points: list[AttackPoint] = []
    for item, places in plan_items(
        scene.starts.values(), scene.terms.facts, scene.grid, recipe
    ).items():
        if (given.starts and item.start not in given.starts) or (
            given.no_check and item.budget > 1
        ):
            continue
        idle(work.device)
        started = time.perf_counter()
        samples = tuple(point.samples for point in places)
        points += attack_item(
            scene, item.start, item.attacker, item.seed, item.budget, samples, work=work
        ).points
        idle(work.device)
        took = time.perf_counter() - started
        (checks if item.budget > 1 else seconds)[item.attacker] += took
        print(
            f"{item.start:18s} {item.attacker:18s} seed {item.seed} budget {item.budget} "
            f"{took:6.1f} s",
            flush=True,
        )
    reached = means(points)
    for attacker in sorted(seconds, key=lambda name: -reached["release"].get(name, 0.0)):
        row = "  ".join(
            f"{start} {found[attacker]:.3f}"
            for start, found in reached.items()
            if attacker in found
        )
        print(f"{attacker:18s} {seconds[attacker]:7.1f} s  {row}")
    drop = models[1].test_accuracy - models[0].test_accuracy
    figures: dict[str, object] = {
        "suite": given.suite,
        "lock": given.lock,
        "grid": given.grid,
        "seeds": given.seeds,
        "steps": given.steps or SUITES[given.suite].steps,
        "source_accuracy": models[1].test_accuracy,
        "source_drop": drop,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "check_seconds": {name: round(value, 1) for name, value in checks.items()},
        "mean_accuracy": {
            start: {name: round(value, 4) for name, value in found.items()}
            for start, found in reached.items()
        },
    }
    if not given.starts:
        measures = measure(tuple(points), scene.same_as, test_samples=target.counts.test)
        figures["removed"] = measures.removed_vs_reference.model_dump()
        figures["removed_by_dummy"] = measures.removed_by_dummy.model_dump()
        figures["budget_checks"] = [check.model_dump() for check in measures.budget_checks]
    write_line("audit", given, figures)


def trained(source: ImageSet, work: Work) -> CellNetwork:
    """The reference: 600 steps on the source."""
    architecture = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=4,
        cells_per_stage=1,
        classes=10,
        shape=(1, 16, 16),
    )
    network = build(architecture, torch_generator(0, "benchmark", "audit", "weights"))
    pools = [load_pool(source, split, work.files, device=work.device) for split in ("train", "val")]
    recipe = FitRecipe(
        steps=600, batch_size=64, optimizer="adam", learning_rate=0.01, select="last"
    )
    draws = torch_generator(0, "benchmark", "audit", "batches")
    fit(network, pools[0], recipe, generator=draws, val=pools[1], context=RunContext(work.device))
    return network


def locked(
    reference: CellNetwork, source: ImageSet, target: ImageSet, lock: str, work: Work
) -> CellNetwork:
    """A copy of the reference behind a stand-in for a lock; `none` is the reference's own weights
    after as many steps more.
    """
    network = build(reference.architecture, torch_generator(0, "benchmark", "audit", "copy"))
    network.load_state_dict(reference.state_dict())
    network.to(work.device)
    masks = _largest(network) if lock != "none" else {}
    ours, theirs = (
        load_pool(images, "train", work.files, device=work.device) for images in (source, target)
    )
    theirs = Pool(theirs.images, theirs.labels, ours.mean, ours.std, theirs.classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    for (x, y), (other_x, other_y) in _pairs(ours, theirs, steps=400):
        loss = functional.cross_entropy(network(x), y)
        if lock == "damaged":
            loss = loss - AWAY * functional.cross_entropy(network(other_x), other_y).clamp_max(MOST)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in masks:
                    parameter.mul_(masks[name])
    return network.eval()


# batches of both, so many
def _pairs(ours: Pool, theirs: Pool, steps: int):  # type: ignore[no-untyped-def]
    draw = partial(torch_generator, 0, "benchmark", "audit", "lock")
    feeds = [
        cycle(batch for epoch in range(steps) for batch in pool.batches(64, draw(at, epoch)))
        for at, pool in enumerate((ours, theirs))
    ]
    for _ in range(steps):
        yield next(feeds[0]), next(feeds[1])


def _largest(network: nn.Module) -> dict[str, torch.Tensor]:
    """1 for the largest weights of each kernel, 0 for the others."""
    masks = {}
    for name, parameter in network.named_parameters():
        if parameter.dim() == 4:
            bound = parameter.detach().abs().flatten().quantile(SPARSITY)
            masks[name] = (parameter.detach().abs() > bound).float()
    return masks


def checkpoint(network: CellNetwork, source: ImageSet, work: Work) -> Checkpoint:
    """The network as an audit takes it."""
    logits, labels = logits_of(network, load_pool(source, "test", work.files), device=work.device)
    right = accuracy(logits, labels)
    return Checkpoint(
        architecture=network.architecture,
        weights=work.files.put_tensors(state(network)),
        trained_on=source.digest,
        made_by="a benchmark",
        val_accuracy=right,
        test_accuracy=right,
        test_samples=len(labels),
        confusion=((0,) * 10,) * 10,
        history=(),
    )


def means(points: list[AttackPoint]) -> dict[str, dict[str, float]]:
    """Mean test accuracy over ln(images), of each start and attacker, over seeds."""
    curves: dict[tuple[str, str, int], dict[int, float]] = defaultdict(dict)
    for point in points:
        if point.test_accuracy is not None and point.budget == 1:
            curves[point.start, point.attacker, point.seed][point.samples] = point.test_accuracy
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (start, attacker, _), curve in curves.items():
        samples = sorted(curve)
        span = torch.tensor(samples[-1] / samples[0]).log().item()
        found[start][attacker].append(area(samples, [curve[x] for x in samples]) / span)
    return {
        start: {name: sum(values) / len(values) for name, values in rows.items()}
        for start, rows in found.items()
    }


if __name__ == "__main__":
    main()
