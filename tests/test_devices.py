"""Every stage that computes, on the CPU and on a GPU: the same body for both, held against the CPU
where the answer is one number.

`pytest -m gpu` runs what needs a GPU. Trainings draw the same batches on all devices but round
otherwise, so they are held to what they must come to; everything without training is held to the
CPU's own figures.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lockforge.audit._starts import facts_of, starting_points
from lockforge.audit._thief import merge, plan_grid, split_thief
from lockforge.audit.attackers import SUITES, attackers_of
from lockforge.audit.protocol import AttackConfig, Budget, Item, attack
from lockforge.audit.stage import audit_transfer
from lockforge.data.batches import load_pool
from lockforge.data.roles import read_set
from lockforge.embed.stage import cosine, embed_task, vector_of
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.export.onnx import to_onnx
from lockforge.files import Files
from lockforge.models.networks import build, load
from lockforge.prune.stage import prune_model
from lockforge.randomness import torch_generator
from lockforge.recipe import (
    AuditRecipe,
    DataRecipe,
    EmbedRecipe,
    ExportRecipe,
    FitRecipe,
    NetworkRecipe,
    PruneRecipe,
    SearchRecipe,
    ShortlistRecipe,
    TrainRecipe,
)
from lockforge.records import Architecture, Cell, Checkpoint, ImageSet, NamedArchitecture, Subjects
from lockforge.runs import Runs
from lockforge.search._data_free import DATA_FREE, score_data_free
from lockforge.search._proxies import PROXIES, score_network
from lockforge.search.fit_predictor import score_cells
from lockforge.search.stage import search_cell
from lockforge.train.stage import train_cell

CELL = Cell.parse(
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|"
)
NETWORK = NetworkRecipe(space="nasbench201", stem_channels=4, cells_per_stage=1)
TRAIN = TrainRecipe(epochs=12, batch_size=16, learning_rate=0.1)
FEW = FitRecipe(
    steps=6,
    batch_size=16,
    optimizer="adam",
    learning_rate=0.003,
    schedule="constant",
    select="last",
)


@pytest.fixture(scope="module")
def do(device: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A runs folder for each device."""
    return Runs(tmp_path_factory.mktemp(device) / "runs", seed=0, device=device)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The CPU's own, to compare with."""
    return Runs(tmp_path_factory.mktemp("here") / "runs", seed=0)


def digits(do: Runs, which: str = "0-2", size: int | None = None) -> ImageSet:
    """Handwritten digits, few of them."""
    return read_set(f"digits:{which}", DataRecipe(limit_per_class=40, size=size), do.files)


@pytest.fixture(scope="module")
def trained(do: Runs) -> Checkpoint:
    """Reads three digits."""
    source = digits(do)
    architecture = Architecture(cell=CELL, classes=3, shape=source.shape, **NETWORK.model_dump())
    return do(train_cell, architecture, source, TRAIN)


def test_embed(do: Runs, here: Runs) -> None:
    """The Fisher information points where the CPU's does, up to what the head's training rounds."""
    recipe = EmbedRecipe(samples=96, head_steps=60)
    there, mine = (runs(embed_task, digits(runs), recipe, None) for runs in (do, here))
    assert np.isfinite(vector_of(there, do.files)).all()
    do.files.put_arrays({"fisher": vector_of(mine, here.files)})
    assert cosine(there, mine, do.files) > 0.999
    assert abs(there.probe_accuracy - mine.probe_accuracy) < 0.05


@pytest.mark.parametrize("grasp", ["exact", "difference"])
def test_proxies(device: str, grasp: str) -> None:
    """All seven and the four without data are the CPU's to four digits, grasp by a difference to
    two.
    """
    architecture = Architecture(cell=CELL, classes=5, shape=(3, 16, 16), **NETWORK.model_dump())
    draws = torch_generator(0, "devices", "proxies")
    images, labels = (
        torch.randn(16, 3, 16, 16, generator=draws),
        torch.randint(5, (16,), generator=draws),
    )
    found = []
    for where in ("cpu", device):
        net = build(architecture, torch_generator(0, "devices", "weights")).to(where)
        scores = score_network(net, images.to(where), labels.to(where), grasp=grasp)  # type: ignore[arg-type]
        found.append(
            scores | score_data_free(net, (3, 16, 16), torch_generator(0, "devices", "zen"))
        )
    assert set(found[1]) == {*PROXIES, *DATA_FREE}
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=2e-2 if name == "grasp" else 1e-3), name


def test_score_cells(do: Runs, here: Runs) -> None:
    """The table of a task is the CPU's."""
    cells = (
        CELL,
        Cell.parse(
            "|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
        ),
    )
    tables = []
    for runs in (do, here):
        found = runs(score_cells, digits(runs), NETWORK, cells, 16, 8)
        tables.append(runs.files.get_arrays(found.scores)["scores"])
    np.testing.assert_allclose(*tables, rtol=2e-2)


def test_search(do: Runs) -> None:
    """Cells are measured on the source and on an auxiliary set, and one of them is chosen."""
    source, other = digits(do), digits(do, "5-7/a")
    embeddings = tuple(
        do(embed_task, images, EmbedRecipe(samples=64, head_steps=20), None)
        for images in (source, other)
    )
    short = ShortlistRecipe(cells=2, rounds=1, fit=FitRecipe(steps=8, batch_size=16))
    found = do(
        search_cell,
        source,
        (other,),
        embeddings,
        NETWORK,
        SearchRecipe(measurements=4, shortlist=short),
    )
    assert found.chosen.cell in {candidate.cell for candidate in found.candidates}
    assert found.scheme == "TK"


def test_train(do: Runs, trained: Checkpoint) -> None:
    """Three digits are learnt; what is stored, loaded on the CPU, is right as often as was said,
    within an image.
    """
    network, test = (
        load(trained.architecture, do.files.get_tensors(trained.weights)),
        load_pool(digits(do), "test", do.files),
    )
    assert trained.test_accuracy > 0.8
    assert accuracy(*logits_of(network, test)) == pytest.approx(
        trained.test_accuracy, abs=1.5 / len(test)
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"over": "worst", "away": "mmd", "projection": "soft"}, {"structured": True}],
    ids=["plain", "worst mmd soft", "filters"],
)
def test_prune(do: Runs, trained: Checkpoint, changes: dict[str, object]) -> None:
    """Of a network, against two strangers: the sparsity that was asked for, and finite terms."""
    recipe = PruneRecipe(
        method="ntp", sparsity=0.5, rounds=2, fit=FEW, recovery=FEW, max_source_drop=1.0
    ).model_copy(update=changes)
    model, source = trained, digits(do)
    if "structured" in changes:
        model = do(
            train_cell,
            NamedArchitecture(name="vgg6_bn_thin-cifar", classes=3, shape=source.shape),
            source,
            FEW,
        )
    found = do(
        prune_model, model, model, source, (digits(do, "5-7/a"), digits(do, "3-4/b")), recipe
    )
    assert all(
        np.isfinite([line.source_loss, line.auxiliary_loss, line.between, line.within]).all()
        for line in found.pruning.rounds
    )
    if "structured" in changes:
        assert found.pruning.smaller is not None
    else:
        assert abs(found.pruning.sparsity - 0.5) < 0.01


def test_prune_without_a_stranger(do: Runs, trained: Checkpoint) -> None:
    """Images made of the source stand in."""
    recipe = PruneRecipe(
        method="ntp", sparsity=0.5, rounds=1, fit=FEW, recovery=FEW, max_source_drop=1.0
    )
    assert (
        do(prune_model, trained, trained, digits(do), (), recipe).pruning.auxiliary == "generated"
    )


def test_audit(do: Runs, trained: Checkpoint) -> None:
    """Points are chosen, tested and measured, of the quick suite; three other digits are learnt."""
    recipe = AuditRecipe(images_per_class=(2, 0), seeds=2, steps=4, probe_steps=20, batch_size=16)
    subjects = Subjects(release=trained, twin=trained, reference=trained)
    audit = do(audit_transfer, subjects, digits(do), digits(do, "5-7/b"), recipe)
    tested = [point.test_accuracy for point in audit.points if point.test_accuracy is not None]
    assert max(tested) > 0.6
    assert all(np.isfinite(point.val_accuracy) for point in audit.points)


@pytest.mark.slow
def test_every_attacker(do: Runs, device: str, trained: Checkpoint) -> None:
    """Each of the full suite attacks the release once. The classes are the source's, so that all of
    them can.
    """
    source, target = digits(do), digits(do, "0-2/b")
    (start, *_), _ = starting_points(
        Subjects(release=trained, twin=trained, reference=trained), target, do.files
    )
    facts, _ = facts_of(Subjects(release=trained, twin=trained, reference=trained), source, target)
    own, train, val, test = (
        load_pool(images, split, do.files, device=device)  # type: ignore[arg-type]
        for images, split in (
            (source, "train"),
            (target, "train"),
            (target, "val"),
            (target, "test"),
        )
    )
    draw, pool = partial(torch_generator, 0, "audit"), merge([train, val], own)
    grid = plan_grid(pool.labels.cpu(), target.classes, (5, 0))
    thief = split_thief(pool, grid, draw, 0, own)
    recipe = AuditRecipe(suite="full", rates=(0.003,), sgd_rates=(0.1,))
    terms = AttackConfig(recipe, facts, Budget(4, 16, device, 4), draw)
    attackers = attackers_of("full", facts, scratch=False)
    assert attackers == SUITES["full"].attackers
    for attacker in attackers:
        given, loots = (
            start.given(draw("start"), device),
            {point: thief.data(point) for point in grid.points},
        )
        points = attack(
            Item("release", attacker.name, 0), attacker, given, loots, merge([test], own), terms
        )
        assert all(np.isfinite(point.val_accuracy) for point in points), attacker.name
        assert sum(point.test_accuracy is not None for point in points) == len(grid.points), (
            attacker.name
        )


def test_onnx(device: str, do: Runs, trained: Checkpoint, tmp_path: Path) -> None:
    """The exported file answers on the device's own provider of onnxruntime as the weights do on
    the device.
    """
    runtime = pytest.importorskip("onnxruntime")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if provider not in runtime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider}")
    tensors = do.files.get_tensors(trained.weights)
    (tmp_path / "model.onnx").write_bytes(to_onnx(trained.architecture, tensors, ExportRecipe()))
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=[provider])
    assert session.get_providers()[0] == provider
    pixels = load_pool(digits(do), "test", do.files).pixels()
    network = load(trained.architecture, tensors).to(device).eval()
    with torch.inference_mode():
        ours = network(pixels.to(device)).cpu().numpy()
    (theirs,) = session.run(None, {"pixels": pixels.numpy()})
    np.testing.assert_allclose(theirs, ours, rtol=1e-2, atol=1e-3)


def test_a_run_is_resumed_on_its_device(do: Runs, device: str, tmp_path: Path) -> None:
    """Stopped after an epoch and asked again: the bits of a run that was not stopped, the
    optimiser's state back on the device.
    """
    from lockforge.engine.fit import RunContext, fit

    source = digits(do)
    train, val = (load_pool(source, split, do.files, device=device) for split in ("train", "val"))
    architecture = Architecture(cell=CELL, classes=3, shape=source.shape, **NETWORK.model_dump())

    def run(folder: Path | None, stop: float = 99.0) -> dict[str, torch.Tensor]:
        def report(done: float, _total: float, _note: str) -> None:
            if done == stop:
                raise KeyboardInterrupt

        net = build(architecture, torch_generator(0, "devices", "resume"))
        context = RunContext(device, folder, report, save_every=0)
        recipe = FitRecipe(epochs=3, batch_size=16, crop=1, flip=True)
        return dict(
            fit(
                net,
                train,
                recipe,
                generator=torch_generator(0, "devices", "draws"),
                val=val,
                context=context,
            ).module.state_dict()
        )

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop=2.0)
    whole, again = run(None), run(tmp_path)
    for name, tensor in whole.items():
        torch.testing.assert_close(
            again[name],
            tensor,
            rtol=0 if device == "cpu" else 1e-2,
            atol=0 if device == "cpu" else 1e-3,
        )


def test_files_know_no_device(do: Runs, trained: Checkpoint) -> None:
    """Weights are stored as CPU tensors of float32, whatever trained them."""
    tensors = Files(do.files.root).get_tensors(trained.weights)
    assert {(tensor.device.type, tensor.dtype) for tensor in tensors.values()} <= {
        ("cpu", torch.float32),
        ("cpu", torch.int64),
    }
