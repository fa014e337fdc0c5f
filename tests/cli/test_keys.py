"""`lockforge keys`: what is made, what is shown, and what never is."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lockforge.cli._keys import VARIABLE, open_key, read_passphrase
from lockforge.cli._releases import Signing, check_out
from lockforge.errors import RecipeError
from lockforge.evidence.signing import fingerprint, is_locked, load_public, new_key

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _nobody_to_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No passphrase in the environment, no terminal, a config folder of the test's own."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_new_key_is_yours_alone_and_never_printed(run: Run, tmp_path: Path) -> None:
    """0600 in the config folder; the answer names both files and the fingerprint and holds no key;
    nothing is overwritten.
    """
    code, said = run("keys", "new")
    path = tmp_path / "config" / "lockforge" / "signing.pem"
    assert code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert fingerprint(load_public(path.with_name("signing.pem.pub"))) in said
    body = "".join(path.read_text().splitlines()[1:-1])
    assert "PRIVATE" not in said
    assert not any(body[at : at + 16] in said for at in range(len(body) - 16))
    assert run("keys", "new")[0] == 2
    assert "".join(path.read_text().splitlines()[1:-1]) == body


def test_public_part_and_fingerprint_are_shown_of_either_part(run: Run, tmp_path: Path) -> None:
    """From the private file and from the public one the same; standard output is the PEM alone."""
    made = new_key(tmp_path / "k")
    pem = (tmp_path / "k.pub").read_text()
    for name in ("k", "k.pub"):
        assert run("keys", "public", name) == (0, pem)
        assert run("keys", "fingerprint", name) == (0, fingerprint(made.public_key()) + "\n")
    (tmp_path / "text").write_text("hello")
    for name in ("text", "none"):
        assert run("keys", "fingerprint", name)[0] == 2
    assert "keys new" in run("keys", "public")[1]


def test_a_passphrase_comes_from_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With it the key is locked and opens again everywhere; without it, or with another, the answer
    is one line and exit code 2.
    """
    assert run("keys", "new", "--passphrase", "--out", "k") == (
        2, ("error: the key needs a passphrase and there is no terminal to ask at\nhint: set "
           f"{VARIABLE}\n")
    )  # fmt: skip
    monkeypatch.setenv(VARIABLE, "open sesame")
    assert run("keys", "new", "--passphrase", "--out", "k", "--json")[0] == 0
    assert is_locked(tmp_path / "k")
    code, said = run("keys", "fingerprint", "k")
    assert (code, said.strip()) == (0, fingerprint(load_public(tmp_path / "k.pub")))
    assert fingerprint(open_key(tmp_path / "k").public_key()) == said.strip()
    plan = check_out(tmp_path / "release", None, Signing(key=tmp_path / "k"))
    assert plan.key
    assert fingerprint(plan.key().public_key()) == said.strip()
    monkeypatch.setenv(VARIABLE, "guess")
    code, said = run("keys", "public", "k")
    assert code == 2
    assert "guess" not in said
    assert "Traceback" not in said


def test_a_passphrase_is_typed_twice_when_it_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal; two different ones, or nothing, are refused."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    typed = iter(["a", "a", "a", "b", ""])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(typed))
    assert read_passphrase("new", again=True) == b"a"
    for _ in range(2):
        with pytest.raises(RecipeError, match="no passphrase, or two different"):
            read_passphrase("new", again=True)


def test_a_layout_and_a_release_do_not_share_a_folder(tmp_path: Path) -> None:
    """One would take the other away when it is replaced."""
    for oci in (tmp_path / "release", tmp_path / "release" / "oci", tmp_path):
        with pytest.raises(RecipeError, match="lie in one another"):
            check_out(tmp_path / "release", oci, Signing(unsigned=True))
    assert (
        check_out(tmp_path / "release", tmp_path / "oci", Signing(unsigned=True)).oci
        == tmp_path / "oci"
    )


def test_options_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    """Said before the work begins: a certificate needs its key, and a release has one signature."""
    wrong: dict[str, dict[str, object]] = {
        "without --key": {"certificate": tmp_path / "c"},
        "exclude each other": {"key": tmp_path / "k", "unsigned": True},
        "--keyless excludes": {"keyless": True, "key": tmp_path / "k"},
        "keyless excludes --key and": {"keyless": True, "unsigned": True},
        "are for --keyless": {"token": tmp_path / "t"},
        "and --trust-config are for": {"services": "offline"},
        "cannot be made offline": {"keyless": True, "services": "offline"},
    }
    for said, asked in wrong.items():
        with pytest.raises(RecipeError, match=said):
            # its own fields
            check_out(tmp_path / "release", None, Signing(**asked))  # type: ignore[arg-type]
    assert not (tmp_path / "release").exists()
