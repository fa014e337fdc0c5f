"""The stage `prune_model`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from lockforge.data.batches import load_pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.engine.fit import Fitted
from lockforge.errors import DataError, IntegrityError, OutcomeError, RecipeError
from lockforge.models.networks import load
from lockforge.prune import stage as room
from lockforge.prune.stage import prune_model
from lockforge.recipe import PruneRecipe
from lockforge.records import BLACK_BOX, Checkpoint, ImageSet, NamedArchitecture, PrunedModel
from lockforge.runs import Runs
from lockforge.train.stage import train_cell
from tests.prune.conftest import QUICK, SHORT


@pytest.fixture(scope="session")
def pruned(do: Runs, model: Checkpoint, source: ImageSet, auxiliary: ImageSet) -> PrunedModel:
    """The model behind a lock against the auxiliary patterns."""
    return do(prune_model, model, model, source, (auxiliary,), QUICK)


def test_half_of_the_weights_are_exact_zeros(do: Runs, pruned: PrunedModel) -> None:
    """Every layer has its share of zeros, up to rounding, and none of them is a negative zero; the
    head and the norms have none.
    """
    network = load(pruned.checkpoint.architecture, do.files.get_tensors(pruned.checkpoint.weights))
    tensors = dict(network.named_parameters())
    for layer in pruned.pruning.layers:
        weight = tensors[layer.name]
        assert int((weight == 0).sum()) == layer.zeros == round(0.5 * weight.numel())
        assert not bool(torch.signbit(weight[weight == 0]).any())
    assert not bool((network.head.weight == 0).any())


def test_the_record_says_how_it_went(pruned: PrunedModel) -> None:
    """Rounds with rising sparsity, then recovery; terms of the loss; sizes in which zeros pay."""
    pruning = pruned.pruning
    assert [line.phase for line in pruning.rounds] == ["rounds"] * 3 + ["recovery"]
    assert [line.sparsity for line in pruning.rounds] == sorted(
        line.sparsity for line in pruning.rounds
    )
    assert all(
        line.auxiliary_loss is not None and line.between is not None and line.primal >= 0
        for line in pruning.rounds
    )
    assert pruning.rounds[1].penalty > 0
    assert (pruning.method, pruning.fisher, pruning.auxiliary) == ("ntp", True, "given")
    assert pruning.sparse_bytes < pruning.dense_bytes


def test_its_accuracies_are_those_of_its_weights(
    do: Runs, pruned: PrunedModel, model: Checkpoint, source: ImageSet
) -> None:
    """The stored weights, loaded again, measure the same; the drop is counted on validation from
    the reference.
    """
    network = load(pruned.checkpoint.architecture, do.files.get_tensors(pruned.checkpoint.weights))
    assert (
        accuracy(*logits_of(network, load_pool(source, "test", do.files)))
        == pruned.checkpoint.test_accuracy
    )
    assert pruned.pruning.source_drop == pytest.approx(
        model.val_accuracy - pruned.checkpoint.val_accuracy
    )


def test_the_lock_collapses_the_auxiliary_classes(
    do: Runs, model: Checkpoint, source: ImageSet, auxiliary: ImageSet
) -> None:
    """With a strong Fisher term the ratio of scatters in the recovery is under half of that without
    one, at equal sparsity.
    """
    longer = QUICK.model_copy(
        update={
            "fit": SHORT.model_copy(update={"steps": 25}),
            "recovery": SHORT.model_copy(update={"steps": 25}),
        }
    )
    ratios = []
    for fisher in (0.0, 10.0):
        recipe = longer.model_copy(update={"fisher": fisher, "alpha": 0.0})
        last = do(prune_model, model, model, source, (auxiliary,), recipe).pruning.rounds[-1]
        assert last.between is not None
        assert last.within is not None
        ratios.append(last.between / last.within)
    assert ratios[1] < ratios[0] / 2


@pytest.mark.parametrize(
    "changes",
    [
        {"projection": "soft", "shrink": 1e-5},
        {"projection": "soft", "shrink": 0.5},
        {"scope": "global"},
        {"away": "mmd"},
        {"over": "worst"},
    ],
)
def test_every_variant_ends_at_the_sparsity_asked_for(
    do: Runs, model: Checkpoint, source: ImageSet, auxiliary: ImageSet, changes: dict[str, object]
) -> None:
    """Whether a soft threshold falls short of it or would go beyond, layer by layer or over all,
    with either drive, over two sets.
    """
    found = do(
        prune_model, model, model, source, (auxiliary, source), QUICK.model_copy(update=changes)
    )
    weights = sum(layer.weights for layer in found.pruning.layers)
    assert abs(found.pruning.sparsity - 0.5) <= len(found.pruning.layers) / weights


def test_whole_filters_leave_a_network_by_name(
    do: Runs, source: ImageSet, auxiliary: ImageSet
) -> None:
    """The network itself becomes smaller, keeps its classes, and is recovered; nothing in it is
    zero.
    """
    architecture = NamedArchitecture(name="vgg6_bn_thin-cifar", classes=5, shape=source.shape)
    wide = do(train_cell, architecture, source, SHORT)
    found = do(
        prune_model, wide, wide, source, (auxiliary,), QUICK.model_copy(update={"structured": True})
    )
    smaller = found.pruning.smaller
    assert smaller is not None
    assert smaller.parameters[1] < 0.6 * smaller.parameters[0]
    assert smaller.flops[1] < smaller.flops[0]
    assert found.pruning.sparsity == 0
    network = load(found.checkpoint.architecture, do.files.get_tensors(found.checkpoint.weights))
    assert sum(weight.numel() for weight in network.parameters()) == smaller.parameters[1]
    assert network.head.out_features == 5


def test_without_an_auxiliary_set_images_of_the_source_stand_in(
    do: Runs, model: Checkpoint, source: ImageSet
) -> None:
    """And the record says so."""
    found = do(prune_model, model, model, source, (), QUICK)
    assert found.pruning.auxiliary == "generated"
    assert found.pruning.rounds[-1].between is not None


def test_magnitude_pruning_sees_no_auxiliary_set(
    do: Runs, model: Checkpoint, source: ImageSet, auxiliary: ImageSet
) -> None:
    """The same weights come out with and without one."""
    recipe = QUICK.model_copy(update={"method": "magnitude"})
    alone, beside = (
        do(prune_model, model, model, source, given, recipe) for given in ((), (auxiliary,))
    )
    assert alone.checkpoint.weights == beside.checkpoint.weights
    assert alone.pruning.auxiliary == "none"
    assert not alone.pruning.fisher


@pytest.mark.parametrize("changes", [{}, {"projection": "soft", "shrink": 1e-5}])
def test_an_interrupted_lock_goes_on_after_its_last_round(
    do: Runs,
    own_runs: Runs,
    model: Checkpoint,
    source: ImageSet,
    auxiliary: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
) -> None:
    """Broken off in the third round, it repeats neither the first nor the second, and ends with the
    same bits; duals go on too.
    """
    recipe = QUICK.model_copy(update=changes)
    whole = do(prune_model, model, model, source, (auxiliary,), recipe)
    fits: list[int] = []
    real = room.fit

    def counted(*args: object, **named: object) -> Fitted:
        fits.append(1)
        if len(fits) == 3:
            raise KeyboardInterrupt
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        own_runs(prune_model, model, model, source, (auxiliary,), recipe)
    again = own_runs(prune_model, model, model, source, (auxiliary,), recipe)
    assert len(fits) == 3 + 2  # the third round and the recovery
    assert again == whole


@pytest.mark.parametrize("fault", ["cut", "strange"])
def test_a_damaged_round_is_refused_and_named(
    own_runs: Runs,
    model: Checkpoint,
    source: ImageSet,
    auxiliary: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    """Cut short, or with a copy of another shape: exit 5 and the file's name, not a network that
    nobody asked for.
    """
    monkeypatch.setattr(room, "masks_of", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        own_runs(prune_model, model, model, source, (auxiliary,), QUICK)
    (path,) = own_runs.folder.glob("prune_model/*.partial/round.safetensors")
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        with safe_open(path, "pt") as file:
            metadata, tensors = (
                file.metadata(),
                {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
            )
        first = next(name for name in tensors if name.startswith("sparse."))
        path.write_bytes(save({**tensors, first: torch.zeros(1)}, metadata))
    with pytest.raises(
        IntegrityError,
        match=r"round\.safetensors is damaged" if fault == "cut" else "masks do not fit",
    ):
        own_runs(prune_model, model, model, source, (auxiliary,), QUICK)


def _interrupt(*_given: object) -> None:
    raise KeyboardInterrupt


def test_a_term_that_is_not_finite_stops_it_and_is_named(
    own_runs: Runs, model: Checkpoint, source: ImageSet, auxiliary: ImageSet
) -> None:
    """A learning rate that blows up: exit 6, which term, and the rounds before are still there."""
    wild = QUICK.model_copy(
        update={"recovery": SHORT.model_copy(update={"optimizer": "sgd", "learning_rate": 1e30})}
    )
    with pytest.raises(OutcomeError, match="diverged in recovery") as caught:
        own_runs(prune_model, model, model, source, (auxiliary,), wild)
    assert any("is not finite" in fault for fault in caught.value.faults)
    assert list(own_runs.folder.glob("prune_model/*.partial/round.safetensors"))


def test_the_guard_refuses_a_lock_that_costs_the_source_too_much(
    do: Runs, model: Checkpoint, source: ImageSet, auxiliary: ImageSet
) -> None:
    """A lock that tears the source down is an outcome, not a release; bisection names a sparsity
    that holds.
    """
    guard = {"max_source_drop": 0.05, "sparsity": 0.97, "method": "magnitude", "bisection": 4}
    recipe = QUICK.model_copy(update={**guard, "recovery": SHORT.model_copy(update={"steps": 2})})
    with pytest.raises(
        OutcomeError, match=r"source guard refuses: at sparsity 0\.97 .*; 0\.\d+ holds"
    ):
        do(prune_model, model, model, source, (auxiliary,), recipe)


def test_wrong_questions_are_refused(
    do: Runs, model: Checkpoint, source: ImageSet, auxiliary: ImageSet
) -> None:
    """No method; images of another shape; a black box; a sparsity that empties a layer."""
    with pytest.raises(RecipeError, match=r"prune\.method is none"):
        do(prune_model, model, model, source, (), PruneRecipe())
    wide = auxiliary.model_copy(update={"shape": (1, 9, 9)})
    with pytest.raises(DataError, match="another shape") as caught:
        do(prune_model, model, model, source, (auxiliary, wide), QUICK)
    assert caught.value.faults == ("auxiliary set 2 has (1, 9, 9)",)
    box = model.model_copy(
        update={"architecture": NamedArchitecture(name=BLACK_BOX, classes=5, shape=(1, 6, 6))}
    )
    with pytest.raises(DataError, match="ONNX file cannot be pruned"):
        do(prune_model, box, model, source, (), QUICK)
    with pytest.raises(RecipeError, match="would leave nothing"):
        do(
            prune_model,
            model,
            model,
            source,
            (auxiliary,),
            QUICK.model_copy(update={"sparsity": 0.999}),
        )


def test_the_log_has_a_line_a_round(do: Runs, pruned: PrunedModel) -> None:
    """log.jsonl of the finished question, to be plotted."""
    logs = [
        path
        for path in do.folder.glob("prune_model/*/log.jsonl")
        if path.parent.suffix != ".partial" and _result(path.parent) == pruned.digest
    ]
    lines = [json.loads(line) for line in logs[0].read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]


def _result(folder: Path) -> str:
    return PrunedModel.from_json((folder / "result.json").read_bytes()).digest
