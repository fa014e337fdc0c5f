"""The command line: one answer on standard output, one message and one exit code for each kind of
fault.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lockforge.cli._console import Terminal
from lockforge.cli._doctor import examine
from lockforge.recipe import Recipe, read_recipe


def lockforge(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "lockforge", *arguments],
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("protekt",), 2, "protekt"),
        (("protect", "--recipe", "nothing"), 2, "digits"),
        (("protect", "--set", "search.stepz=1", "--set", "seed=x"), 2, "2 fault(s)"),
        (("protect", "nowhere.npz", "--unsigned"), 3, "nowhere.npz"),
        (("protect", "--target", "digits:5-9/b"), 2, "no SOURCE"),
        (("protect", "--key", "a.pem", "--unsigned"), 2, "exclude each other"),
        (("embed", "digits", "--set", "embed.probe=resnet18"), 2, "--probe"),
        (("audit", "nowhere", "--source", "digits:0-4", "--target", "digits:5-9/b"), 3, "nowhere"),
        (("verify", "nowhere"), 2, "nowhere"),
        (("init", "lockforge.txt"), 2, ".yaml"),
        (("search", "digits:0-4", "--device", "cuda"), 4, "cuda"),
    ],
)
def test_a_fault_has_its_exit_code_and_says_what_it_is_about(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    """The message names the value and a way out, without a traceback."""
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = lockforge(*arguments, where=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "release").exists()


def test_a_place_that_is_no_release_is_not_replaced(tmp_path: Path) -> None:
    """The owner's own folder is refused before any work."""
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "thesis.txt").write_text("mine")
    done = lockforge("protect", where=tmp_path)
    assert done.returncode == 4
    assert (tmp_path / "release" / "thesis.txt").read_text() == "mine"


def test_init_writes_the_default_recipe_and_does_not_overwrite(tmp_path: Path) -> None:
    """What it writes can be run at once."""
    assert lockforge("init", where=tmp_path).returncode == 0
    assert read_recipe(str(tmp_path / "lockforge.yaml")) == Recipe()
    assert lockforge("init", where=tmp_path).returncode == 4


def test_runs_list_and_clean_answer_in_json(tmp_path: Path) -> None:
    """A machine reads the same as a person."""
    assert json.loads(lockforge("runs", "list", "--json", where=tmp_path).stdout) == []
    assert json.loads(lockforge("runs", "clean", "--json", where=tmp_path).stdout) == {
        "bytes": 0,
        "removed": 0,
    }


def test_doctor_names_versions_devices_and_disk(tmp_path: Path) -> None:
    """One line for each, and the torch version is the installed one."""
    import torch

    found = {finding.name: finding for finding in examine(tmp_path / "runs")}
    assert found["torch"].said == torch.__version__
    assert {"cpu", "gpu", "disk"} <= set(found)


def test_doctor_notices_two_onnxruntimes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Installed together the CUDA provider vanishes silently, so that is a fault."""
    monkeypatch.setattr("lockforge.cli._doctor.installed", lambda _package: "1.0")
    assert any(
        finding.state == "FAULT" and "two onnxruntimes" in finding.name
        for finding in examine(tmp_path)
    )


def test_each_of_two_trainings_is_told_with_its_own_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They end side by side; a line where no terminal is. Of another stage, and of what was found,
    no note.
    """
    with Terminal("recipe digits") as terminal:
        for stage, cached, note in (
            ("train_cell", False, "first 0.91"),
            ("train_cell", False, "second 0.87"),
            ("embed_task", False, "third"),
        ):
            terminal.end(stage, 1.5, cached=cached, note=note)
        terminal.end("train_cell", 1.5, cached=True, note="")
    lines = capsys.readouterr().err.splitlines()
    assert [
        "first 0.91" in lines[1],
        "second 0.87" in lines[2],
        "third" in lines[3],
        "found done" in lines[4],
    ] == [True, True, False, True]


def test_want_of_memory_is_no_bug(run: Callable[..., tuple[int, str]]) -> None:
    """A network that no machine holds: code 4, and what to make smaller."""
    small = (
        "network.stem_channels=16777216",
        "search.measurements=2",
        "data.limit_per_class=8",
        "embed.samples=12",
        "embed.head_steps=3",
    )
    code, said = run(
        "search", "digits", *(part for setting in small for part in ("--set", setting))
    )
    assert code == 4, said
    assert "memory ran out" in said
    assert "data.size" in said


def test_a_bug_exits_70_with_its_traceback(tmp_path: Path) -> None:
    """Python's own code for an uncaught exception would read as the gate's no."""
    code = """
import sys
from collections.abc import Callable
import lockforge.cli
def broken(): raise RuntimeError("oh")
lockforge.cli.app.command()(broken)
sys.argv = ["lockforge", "broken"]
lockforge.cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 70
    assert "RuntimeError: oh" in done.stderr
    assert "bug" in done.stderr
