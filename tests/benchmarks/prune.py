"""Non-transferable pruning of a small VGG, against the paper's attacker and against attackers that
do not honour a mask.

One pair of digit sets a run: `--pair mnist:usps`, `usps:mnist` or `mnist:mnistm`, 16 px. 30 % of
the target's training images are the auxiliary set, the thief draws from the others. Locked with
the source guard at its default, once for each of `--seeds` networks. Each is attacked twice: by the
suite `paper` (frozen mask), and by an envelope of frozen mask, full fine-tuning and regrow. All
start from the release, the reference, magnitude pruning at equal sparsity, and nothing. All values
of all networks are in the line.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lockforge.audit.attackers import FROZEN_MASK, FULL, REGROW, SUITES, Suite
from lockforge.audit.stage import audit_transfer
from lockforge.data.roles import read_set
from lockforge.engine.device import set_threads
from lockforge.errors import OutcomeError
from lockforge.files import Files
from lockforge.pipeline import lock_weights
from lockforge.randomness import numpy_generator
from lockforge.recipe import AuditRecipe, DataRecipe, FitRecipe, PruneRecipe
from lockforge.records import ImageSet, NamedArchitecture, Splits, Subjects, TransferAudit
from lockforge.runs import Runs
from lockforge.train.stage import train_cell
from tests.benchmarks.line import add_device, idle, write_line
from tests.benchmarks.loop import SHARED

PAIRS = ("mnist:usps", "usps:mnist", "mnist:mnistm")
TRAIN = FitRecipe(steps=500, batch_size=64, optimizer="adam", learning_rate=0.003, select="last")
SHARE = 0.3  # of the target's training images that stand in for the thief's task
ENVELOPE = Suite((FROZEN_MASK, FULL, REGROW), steps=120)


def main() -> None:
    """Train, lock, attack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--save", action="store_true", help="append the line to docs/benchmarks/prune.jsonl"
    )
    parser.add_argument("--pair", default="mnist:usps", choices=PAIRS)
    parser.add_argument("--seeds", type=int, default=3, help="networks")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--recovery", type=int, default=2000, help="steps")
    parser.add_argument("--grid", type=int, nargs="+", default=[1, 5, 20], help="images a class")
    parser.add_argument(
        "--generated", action="store_true", help="no auxiliary set: images made of the source"
    )
    parser.add_argument(
        "--envelopes",
        type=int,
        default=3,
        help="networks that meet the envelope too; the others only the suite `paper`",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="kept in the line")
    parser.add_argument("--runs", type=Path, help="keep finished stages here, and go on from there")
    parser.add_argument("--note", help="what else to know of this run")
    add_device(parser)
    given = parser.parse_args()
    SUITES["envelope"] = ENVELOPE
    set_threads(given.threads)
    if not SHARED.is_file():
        sys.exit(f"{SHARED.parent} is not there: set LOCKFORGE_DATA to a folder with images/")
    with tempfile.TemporaryDirectory() as folder:
        runs = given.runs or Path(folder)
        found = [one_network(given, seed, runs) for seed in range(given.seeds)]
    figures = {
        "pair": given.pair,
        "sparsity": given.sparsity,
        "grid": given.grid,
        "recovery": given.recovery,
    }
    write_line(
        "prune",
        given,
        figures | {"auxiliary": "generated" if given.generated else "given", "networks": found},
    )


def one_network(given: argparse.Namespace, seed: int, folder: Path) -> dict[str, object]:
    """One network's figures; `refused` where the source guard would release nothing."""
    do = Runs(folder, seed=seed, device=given.device)
    first, second = given.pair.split(":")
    data = DataRecipe(size=16, channels=3 if second == "mnistm" else 1)
    source, whole = (
        read_set(str(SHARED.with_name(f"{name}.npz")), data, do.files) for name in (first, second)
    )
    auxiliary, target = halves(whole, do.files, seed)
    architecture = NamedArchitecture(name="vgg6_bn_thin-cifar", classes=10, shape=source.shape)
    reference = do(train_cell, architecture, source, TRAIN)
    recipe = PruneRecipe(method="ntp", sparsity=given.sparsity)
    recipe = recipe.model_copy(
        update={"recovery": recipe.recovery.model_copy(update={"steps": given.recovery})}
    )
    idle(given.device)
    started = time.perf_counter()
    try:
        lock = lock_weights(
            reference, reference, source, () if given.generated else (auxiliary,), recipe, do
        )
    except OutcomeError as error:
        return {"refused": error.message}
    idle(given.device)
    figures: dict[str, object] = {
        "seconds_locks": time.perf_counter() - started,
        "source_accuracy": {
            "reference": reference.test_accuracy,
            "release": lock.release.test_accuracy,
        }
        | {one.name: one.checkpoint.test_accuracy for one in lock.ablations},
        "source_drop_validation": lock.pruned["release"].source_drop,
    }
    print(figures, flush=True)
    subjects = Subjects(
        release=lock.release, twin=reference, reference=reference, ablations=lock.ablations
    )
    for suite in ("paper", "envelope") if seed < given.envelopes else ("paper",):
        # the suite that is only here has no name in a recipe
        attacks = AuditRecipe(images_per_class=tuple(given.grid), seeds=2).model_copy(
            update={"suite": suite}
        )
        audit = do(audit_transfer, subjects, source, target, attacks)
        figures[suite] = summary(audit)
        print(suite, figures[suite], flush=True)
    return figures


def summary(audit: TransferAudit) -> Mapping[str, object]:
    """Areas, advantage removed, what is kept, by network."""
    measures = audit.measures
    slc = {f"{entry.start}:{entry.attacker}": entry.normalised.mean for entry in measures.slc}
    removed = {
        "release": measures.removed_vs_reference,
        **{row.name: row.removed_vs_reference for row in measures.ablations},
    }
    kept = {"release": measures.kept, **{row.name: row.kept for row in measures.ablations}}
    return {
        "slc_auc_normalised": slc,
        "worth": measures.worth.mean,
        "removed": {name: one.mean for name, one in removed.items()},
        "kept": {name: one.mean for name, one in kept.items()},
        "verdict": audit.verdict.word,
    }


def halves(images: ImageSet, files: Files, seed: int) -> tuple[ImageSet, ImageSet]:
    """The auxiliary set, made of a share of the training images, and the target, made of all
    others.
    """
    stored = files.get_arrays(images.pixels)
    training = np.flatnonzero(stored["split"] == 0)
    drawn = numpy_generator(seed, "benchmark", "auxiliary").permutation(training)
    cut = round(SHARE * len(drawn))
    others = np.flatnonzero(stored["split"] != 0)
    return _part(images, stored, np.sort(drawn[:cut]), others[:0], files), _part(
        images, stored, np.sort(drawn[cut:]), others, files
    )


def _part(
    images: ImageSet,
    stored: Mapping[str, np.ndarray],
    rows: np.ndarray,
    others: np.ndarray,
    files: Files,
) -> ImageSet:
    chosen = {name: array[np.concatenate([rows, others])] for name, array in stored.items()}
    train, val, test = (int((chosen["split"] == split).sum()) for split in (0, 1, 2))
    return images.model_copy(
        update={
            "pixels": files.put_arrays(chosen),
            "counts": Splits(train=train, val=val, test=test),
        }
    )


if __name__ == "__main__":
    main()
