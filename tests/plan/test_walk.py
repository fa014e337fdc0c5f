"""The plan knows what protect will ask: the questions, how much each trains, and what is answered
or begun already.
"""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from lockforge.audit.ledger import Ledger
from lockforge.errors import IntegrityError
from lockforge.files import held
from lockforge.plan._walk import walk
from lockforge.records import TransferAudit
from tests.plan.conftest import Ran


@pytest.fixture
def copied(ran: Ran, tmp_path: Path) -> Ran:
    """The same run in a folder that may be spoiled."""
    return Ran(
        ran.recipe, Path(shutil.copytree(ran.folder, tmp_path / "runs")), ran.before, ran.seen
    )


def folders(copied: Ran, stage: str) -> list[Path]:
    """The finished questions of a stage."""
    return sorted(
        path for path in (copied.folder / stage).iterdir() if not path.name.endswith(".partial")
    )


def test_before_anything_is_done_the_questions_are_those_of_the_sentence(ran: Ran) -> None:
    """Lock and reference, each part of the weight lock, and one audit; keys only where no answer is
    missing before.
    """
    assert [(one.stage, one.state) for one in ran.before] == [
        (stage, "to do")
        for stage in (
            "embed",
            "embed",
            "search",
            "train",
            "train",
            "prune",
            "prune",
            "prune",
            "prune",
            "audit",
            "embed",
            "export",
        )
    ]
    assert [one.stage for one in ran.before if one.key] == ["embed", "embed", "embed"]


@pytest.mark.parametrize("stage", ["train", "prune", "audit"])
def test_what_is_counted_is_what_is_trained(ran: Ran, stage: str) -> None:
    """Trainings and optimiser steps, counted before the run and while it ran; parts that fell away
    are those that were not asked.
    """
    asked = Counter(one.stage for one in ran.walk())
    planned = [one.effort for one in ran.before if one.stage == stage]
    if asked[stage] < len(
        planned
    ):  # lock and reference are one cell: one training and one ablation fewer
        planned = planned[: asked[stage]]
    after = [one.effort for one in ran.walk() if one.stage == stage]
    assert ran.seen.trainings[stage] == sum(one.trainings for one in after)
    assert ran.seen.steps[stage] == sum(one.steps for one in after)
    if stage != "audit":
        assert [one.trainings for one in planned] == [one.trainings for one in after]


def test_a_search_trains_at_most_what_is_counted(ran: Ran) -> None:
    """What it measures is exact; a cell that is on both lists is trained once."""
    (search,) = (one for one in ran.before if one.stage == "search")
    measured = 2 * ran.recipe.search.measurements  # on the source and on the auxiliary set
    assert measured < ran.seen.trainings["search"] <= search.effort.trainings
    assert ran.seen.steps["search"] <= search.effort.steps


def test_heads_are_counted_apart(ran: Ran) -> None:
    """Each embedding trains one, and the linear probes of the audit theirs."""
    counted = Counter(dict.fromkeys(("embed", "audit"), 0))
    for one in ran.walk():
        counted[one.stage] += sum(fits.trainings for fits in one.effort.fits if fits.of == "head")
    assert {stage: counted[stage] for stage in ("embed", "audit")} == {
        stage: ran.seen.heads[stage] for stage in ("embed", "audit")
    }


def test_afterwards_everything_is_done(ran: Ran) -> None:
    """Every question has the key of its folder, and nothing is left."""
    for one in ran.walk():
        assert (one.state, one.left.trainings, one.left.passed, one.share) == ("done", 0, 0, 1.0)
        assert one.key
        assert not one.typical
        assert one.spent > 0


def test_looking_leaves_nothing_behind(ran: Ran) -> None:
    """Once the images are read, a plan changes no file."""
    roles, do = ran.open()
    before = {path: path.stat().st_mtime_ns for path in ran.folder.rglob("*")}
    walk(ran.recipe, roles, do)
    assert {path: path.stat().st_mtime_ns for path in ran.folder.rglob("*")} == before


def test_what_stands_on_a_missing_answer_is_to_do(copied: Ran) -> None:
    """Without the search's answer nothing after it has a key, though its folder is there; the
    embeddings are still done.
    """
    shutil.rmtree(copied.folder / "search_cell")
    states = {(one.stage, one.state, one.key is None) for one in copied.walk()}
    assert states == {
        ("embed", "done", False),
        ("search", "to do", False),
        ("train", "to do", True),
        ("prune", "to do", True),
        ("audit", "to do", True),
        ("export", "to do", True),
    }


def test_an_interrupted_audit_says_how_far_it_is(copied: Ran) -> None:
    """Three items in the ledger: these are not to do again, and their trainings are not in what is
    left.
    """
    (done,) = folders(copied, "audit_transfer")
    points = TransferAudit.from_json((done / "result.json").read_bytes()).points
    (before,) = (one for one in copied.walk() if one.stage == "audit")
    part = done.rename(done.with_name(f"{done.name}.partial"))
    ledger = Ledger(part)
    first = list(before.items)[:3]
    for item in first:
        ledger.add(
            item,
            tuple(
                point
                for point in points
                if (point.start, point.attacker, point.seed)
                == (item.start, item.attacker, item.seed)
            ),
        )
    (now,) = (one for one in copied.walk() if one.stage == "audit")
    assert now.state == "interrupted"
    assert now.left_items == tuple(before.items)[3:]
    assert now.share == pytest.approx(3 / len(before.items))
    assert now.left.steps == before.effort.steps - sum(before.items[item].steps for item in first)


def test_an_interrupted_training_has_its_last_steps_left(copied: Ran) -> None:
    """The stored run's step is read from its file; what is done is not to do again."""
    from safetensors.torch import save_file

    done = folders(copied, "train_cell")[0]
    part = done.rename(done.with_name(f"{done.name}.partial"))
    save_file({}, part / "fit.safetensors", {"run": '{"step": 1}'})
    now = next(one for one in copied.walk() if one.stage == "train" and one.key == done.name)
    assert (now.state, now.left.steps) == ("interrupted", now.effort.steps - 1)
    (part / "fit.safetensors").write_bytes(b"cut short")
    again = next(one for one in copied.walk() if one.stage == "train" and one.key == done.name)
    assert again.left.steps == again.effort.steps


def test_an_interrupted_search_and_pruning_say_how_far_they_are(copied: Ran) -> None:
    """Stored short trainings, and stored rounds."""
    from safetensors.torch import save_file

    (search,) = folders(copied, "search_cell")
    part = search.with_name(f"{search.name}.partial")
    prune = folders(copied, "prune_model")[0]
    rounds = prune.rename(prune.with_name(f"{prune.name}.partial"))
    save_file({}, rounds / "round.safetensors", {"rounds": "[{}]"})
    pruned = next(one for one in copied.walk() if one.key == prune.name)
    assert (pruned.state, pruned.left.steps) == ("interrupted", 2 + 3)
    search.rename(part)
    (part / "measured-aa-bb.json").write_text("0.5")
    found = next(one for one in copied.walk() if one.stage == "search")
    assert found.state == "interrupted"
    assert found.share == pytest.approx(1 / found.effort.trainings)


def test_a_question_that_another_process_works_on_is_under_way(copied: Ran) -> None:
    """Its lock is held; the plan neither waits nor takes it."""
    (done,) = folders(copied, "export_artifact")
    part = done.rename(done.with_name(f"{done.name}.partial"))
    with held(part / "lock"):
        assert copied.walk()[-1].state == "under way"
    assert copied.walk()[-1].state == "interrupted"


def test_an_answer_that_was_changed_is_refused_as_protect_refuses_it(copied: Ran) -> None:
    """The same fault, before anything is done."""
    (folders(copied, "search_cell")[0] / "result.json").write_text("{}")
    with pytest.raises(IntegrityError, match="search_cell"):
        copied.walk()
