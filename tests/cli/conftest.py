"""The command line called from within: what an owner types, and what comes back."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lockforge import cli

Outputs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Outputs:
    """`outputs("protect", "photos")` in an empty folder gives the exit code, standard output and
    standard error.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lockforge", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def run(outputs: Outputs) -> Callable[..., tuple[int, str]]:
    """`run("protect", "photos")` in an empty folder gives the exit code and what was said, the
    answer first.
    """

    def call(*arguments: str) -> tuple[int, str]:
        code, out, err = outputs(*arguments)
        return code, out + err

    return call
