"""`lockforge plan` on the terminal and for machines."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lockforge.plan import _calibrate as calibrate
from tests.cli.test_own_network import NAME, weights
from tests.plan.conftest import ROUND

Outputs = Callable[..., tuple[int, str, str]]
SMALL = (
    "--set",
    "data.limit_per_class=8",
    "--set",
    "audit.steps=2",
    "--set",
    "threads=1",
    "--device",
    "cpu",
)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Calibrations are noted, and made up; the cache is the test's own."""
    noted: list[str] = []

    def made_up(_self: object, circumstances: dict[str, str]) -> object:
        noted.append(circumstances["network"])
        return ROUND.model_copy(update={"calibrated": circumstances})

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calibrate._Calibration, "measured", made_up)
    return noted


def test_a_plan_says_the_stages_the_totals_and_what_to_do_next(
    outputs: Outputs, tmp_path: Path
) -> None:
    """A line a stage call, an estimate that is called one, and no stage is worked out."""
    code, out, _ = outputs("plan", "digits", *SMALL)
    assert code == 0
    stages = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert stages[1:9] == ["embed", "embed", "search", "train", "train", "audit", "embed", "export"]
    for words in ("estimate", "memory", "disk", "lockforge protect", "to do", "typical"):
        assert words in out
    assert out.splitlines()[-1].split(maxsplit=1) == [
        "next",
        f"lockforge protect --recipe digits --runs runs --device cpu {' '.join(SMALL[:6])}",
    ]
    assert not [
        path for path in (tmp_path / "runs").iterdir() if path.name not in {"files", "format.json"}
    ]


def test_a_plan_for_machines_and_its_calibration(outputs: Outputs, measured: list[str]) -> None:
    """Seconds and bytes as JSON; measured once, and again when that is asked for."""
    code, out, _ = outputs("plan", "digits", *SMALL, "--json")
    told = json.loads(out)
    assert code == 0
    assert {one["state"] for one in told["questions"]} == {"to do"}
    assert told["seconds"]["left"] > 0
    outputs("plan", "digits", *SMALL, "--json")
    assert len(measured) == 1
    outputs("plan", "digits", *SMALL, "--recalibrate")
    assert len(measured) == 2


def test_a_plan_refuses_what_protect_refuses(outputs: Outputs) -> None:
    """The same exit codes: a recipe that is not there, data that is not there, one set in two
    roles, a name without weights.
    """
    assert outputs("plan", "nothing")[0] == 2
    assert outputs("plan", "digits", "nowhere.npz")[0] == 3
    assert outputs("plan", "digits", "digits:0-4", "--target", "theirs=digits:0-4")[0] == 3
    assert outputs("plan", "digits", "digits:0-4", "--model", "vgg11_bn-cifar")[0] == 2


def test_without_a_target_nothing_is_attacked(outputs: Outputs) -> None:
    """The plan has no audit then, and its JSON none either."""
    _, out, _ = outputs("plan", "digits", "digits:0-4", *SMALL, "--json")
    assert "audit" not in {one["stage"] for one in json.loads(out)["questions"]}


def test_an_own_network_is_measured_not_searched(outputs: Outputs, tmp_path: Path) -> None:
    """Its own architecture is calibrated, a public one is attacked beside it, and nothing stands on
    a typical cell but what is pruned.
    """
    weights(tmp_path / "w.safetensors")
    given = (
        "digits:0-2",
        "--target",
        "digits:5-7",
        "--model",
        NAME,
        "--weights",
        "w.safetensors",
        "--set",
        "prune.method=magnitude",
    )
    code, out, err = outputs("plan", "digits", *given, *SMALL, "--json")
    assert code == 0, err
    without = {one["stage"]: one for one in json.loads(out)["questions"]}
    assert list(without) == ["measure", "embed", "prune", "audit", "export"]
    assert (without["measure"]["typical"], without["prune"]["trainings"]) == (False, 9)
    _, out, _ = outputs(
        "plan", "digits", *given, "--public", f"theirs={NAME}=w.safetensors", *SMALL, "--json"
    )
    beside = {one["stage"]: one for one in json.loads(out)["questions"]}
    assert beside["audit"]["pieces"] > without["audit"]["pieces"]
