"""The gate fails closed: whatever is missing, unreadable, stale, unsigned or too weak, one check
says so, and nothing passes by default.
"""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lockforge.cli import _ci_files as ci_files
from lockforge.cli import app
from lockforge.errors import LockForgeError, RecipeError
from lockforge.evidence.parity import compare
from lockforge.evidence.signing import fingerprint, load_private, load_public, new_key, sign_folder
from lockforge.gate import ALIKE, gate_release
from lockforge.policy import Policy, read_policy
from lockforge.records import Check, Start, TransferAudit, Verdict
from tests.evidence.test_certificates import issue, write
from tests.small_release import LEVELS, MADE, Edit, audit, edit_json, images, make_release

NOW = MADE + timedelta(days=2)
STRICT = Policy(
    attestation="optional",
    max_age_days=3,
    source_accuracy_at_least=0.9,
    removed_at_least=0.75,
    slc_auc_at_most=0.05,
    worst_attacker_at_most=0.6,
)
AUDIT = audit(images(2))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that protects, and its key, made once: `release/`, `key`, `key.pub`."""
    place = tmp_path_factory.mktemp("small")
    make_release(place / "release", place / "key", (AUDIT,))
    return place


@pytest.fixture
def release(small: Path, tmp_path: Path) -> Path:
    """A copy of the release that a test may spoil."""
    shutil.copytree(small / "release", tmp_path / "release")
    return tmp_path / "release"


def failing(found: Verdict) -> dict[str, str]:
    """What failed, and what was said."""
    assert found.passed == all(check.passed for check in found.checks)
    return {check.name: check.value for check in found.checks if not check.passed}


def with_policy(**changes: object) -> Policy:
    """The strict policy with other values."""
    return Policy.model_validate(STRICT.model_dump() | changes)


# What passes


def test_a_good_release_passes_a_strict_policy(release: Path, small: Path) -> None:
    """Every bound of the policy is held, and every one of them is a check of its own."""
    found = gate_release(
        release, with_policy(baseline=str(small / "release")), small / "key.pub", now=NOW
    )
    assert failing(found) == {}
    asked = {"signer", "age", "parity", "targets", "source accuracy", "baseline"}
    asked |= {
        f"target-1: {name}"
        for name in ("suite", "seeds", "verdict", "advantage removed", "SLC-AUC", "worst attacker")
    }
    assert {check.name for check in found.checks} == asked | {
        "manifest",
        "signature",
        "report",
        "attestation",
        "figures",
        "weights",
    }


def test_the_figures_that_are_held_against_the_bounds_are_the_ones_that_the_levels_give(
    release: Path, small: Path
) -> None:
    """Release 45 and unlocked model 85 right of 100 on average: a share of 45/85; the release is
    scratch, so R is 1 and SLC-AUC 0.
    """
    found = {
        check.name: check.value
        for check in gate_release(release, STRICT, small / "key.pub", now=NOW).checks
    }
    assert found["target-1: worst attacker"].startswith(f"{45 / 85:.3f} ")
    assert found["target-1: advantage removed"].startswith("1.000 ")
    assert found["target-1: SLC-AUC"].startswith("0.0000 ")


def test_a_fingerprint_in_the_policy_is_as_good_as_a_key(
    release: Path, small: Path, tmp_path: Path
) -> None:
    """The policy vouches for the signer; another fingerprint does not, and a key must then be one
    of those named.
    """
    mine = fingerprint(load_public(small / "key.pub"))
    assert gate_release(release, with_policy(signers=(mine,)), now=NOW).passed
    assert "signer" in failing(gate_release(release, with_policy(signers=("1" * 64,)), now=NOW))
    assert "signer" in failing(
        gate_release(release, with_policy(signers=("1" * 64,)), small / "key.pub", now=NOW)
    )
    new_key(tmp_path / "other")
    assert "signature" in failing(
        gate_release(release, with_policy(signers=(mine,)), tmp_path / "other.pub", now=NOW)
    )


def test_a_certificate_chain_vouches_for_the_signer(
    release: Path, small: Path, tmp_path: Path
) -> None:
    """The root alone is enough and its name is said; another root, a bare key or another
    fingerprint in the policy are not.
    """
    root, other = issue("root", ca=True), issue("root", ca=True)
    leaf, key = issue("the owner", root)
    chain, stranger = write(tmp_path / "root", root[0]), write(tmp_path / "other", other[0])
    assert "signature" in failing(gate_release(release, STRICT, trusted=chain, now=NOW))
    sign_folder(release, key, (leaf,))
    baseline = str(shutil.copytree(release, tmp_path / "baseline"))
    found = gate_release(release, with_policy(baseline=baseline), trusted=chain, now=NOW)
    assert failing(found) == {}
    assert next(check.value for check in found.checks if check.name == "signer").startswith(
        "CN=the owner, key "
    )
    assert "signature" in failing(gate_release(release, STRICT, trusted=stranger, now=NOW))
    mine, nobodys = fingerprint(key.public_key()), "1" * 64
    assert gate_release(
        release, with_policy(signers=(nobodys, mine)), trusted=chain, now=NOW
    ).passed
    assert {"signer", "age"} == failing(
        gate_release(release, with_policy(signers=(nobodys,)), trusted=chain, now=NOW)
    ).keys()
    behind = failing(
        gate_release(release, with_policy(baseline=str(small / "release")), trusted=chain, now=NOW)
    )
    assert "without certificates" in behind["baseline"]


def test_the_command_takes_a_certificate_chain(release: Path, tmp_path: Path) -> None:
    """`--certificate-chain` in place of `--key`: 0 with the right root, 1 with another."""
    root = issue("root", ca=True)
    leaf, key = issue("the owner", root)
    sign_folder(release, key, (leaf,))
    (tmp_path / "policy.yaml").write_text("attestation: optional\n")
    words = ["gate", str(release), "--policy", str(tmp_path / "policy.yaml"), "--certificate-chain"]
    for authority, code in ((root, 0), (issue("root", ca=True), 1)):
        assert (
            CliRunner()
            .invoke(app, [*words, str(write(tmp_path / "chain", authority[0]))])
            .exit_code
            == code
        )


def test_nothing_to_protect_passes_only_where_the_policy_says_so(
    small: Path, tmp_path: Path
) -> None:
    """An unlocked model that is worth no more than an empty one: no figure of R, and so no pass
    unless it is waived by name.
    """
    worthless: dict[Start, int] = {**LEVELS, "reference": 40}
    folder = make_release(
        tmp_path / "worthless", small / "key", (audit(images(2), levels=worthless),)
    )
    said = failing(gate_release(folder, STRICT, small / "key.pub", now=NOW))
    assert {
        "target-1: verdict",
        "target-1: advantage removed",
        "target-1: worst attacker",
    } <= said.keys()
    assert gate_release(
        folder, with_policy(allow_nothing_to_protect=True), small / "key.pub", now=NOW
    ).passed


# What is missing, stale, unsigned or too weak

Spoil = Callable[[Path], object]


def in_report(change: Edit) -> Spoil:
    """Edit report.json."""
    return lambda folder: edit_json(folder / "report.json", change)


def in_provenance(change: Edit) -> Spoil:
    """Edit provenance.json."""
    return lambda folder: edit_json(folder / "provenance.json", change)


MISSING: dict[str, tuple[Spoil, str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "manifest"),
    "no report": (lambda f: (f / "report.json").unlink(), "report"),
    "no recipe beside it, another within": (
        in_report(lambda t: t["recipe"].update(seed=9)),
        "report",
    ),
    "no provenance": (lambda f: (f / "provenance.json").unlink(), "age"),
    "no time": (in_provenance(lambda t: t.update(started="today")), "age"),
    "a time without a zone": (
        in_provenance(lambda t: t.update(started="2026-03-02T00:00:00")),
        "age",
    ),
    "a provenance that is none": (lambda f: (f / "provenance.json").write_text("[]"), "age"),
    "a stale release": (
        in_provenance(lambda t: t.update(started="2026-01-01T00:00:00+00:00")),
        "age",
    ),
    "one from the future": (
        in_provenance(lambda t: t.update(started="2027-01-01T00:00:00+00:00")),
        "age",
    ),
    "no audit": (in_report(lambda t: t.update(audits=[])), "report"),
    "no points": (in_report(lambda t: t["audits"][0].update(points=[])), "figures"),
    "no verdict": (in_report(lambda t: t["audits"][0].pop("verdict")), "report"),
    "no measures": (in_report(lambda t: t["audits"][0].pop("measures")), "report"),
    "no R": (
        in_report(lambda t: t["audits"][0]["measures"]["removed_vs_reference"].update(low=None)),
        "figures",
    ),
    "no rows of SLC-AUC": (
        in_report(lambda t: t["audits"][0]["measures"].update(slc=[])),
        "figures",
    ),
    "no envelopes": (
        in_report(lambda t: t["audits"][0]["measures"].update(envelopes=[])),
        "figures",
    ),
    "parity that was not checked": (
        in_report(lambda t: t.update(parity="not checked: onnxruntime")),
        "parity",
    ),
    "no parity": (in_report(lambda t: t.update(parity="")), "parity"),
    "ONNX that is not there": (lambda f: (f / "model.onnx").unlink(), "parity"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_or_stale_fails_although_it_is_rightly_signed(
    case: str, release: Path, small: Path
) -> None:
    """The owner's key does not put back what is not there."""
    spoil, check = MISSING[case]
    spoil(release)
    sign_folder(release, load_private(small / "key"))
    assert check in failing(gate_release(release, STRICT, small / "key.pub", now=NOW))


WEAK: dict[str, dict[str, object]] = {
    "target-1: suite": {"suites": ("full",)},
    "target-1: seeds": {"seeds_at_least": 4},
    "target-1: verdict": {"verdicts": ("delays",)},
    "target-1: SLC-AUC": {"slc_auc_at_most": -0.01},
    "target-1: worst attacker": {"worst_attacker_at_most": 0.52},
    "targets": {"targets_at_least": 2},
    "source accuracy": {"source_accuracy_at_least": 0.91},
    "age": {"max_age_days": 1.9},
    "recipe": {"recipes": ("digits",)},
    "attested": {"attestation": "required"},
    "baseline": {"baseline": "no-such-folder"},
}


@pytest.mark.parametrize("check", WEAK)
def test_one_bound_that_is_not_held_fails_its_own_check_and_no_other(
    check: str, release: Path, small: Path
) -> None:
    """Each key of a policy is really asked, on the right side of its bound."""
    assert failing(
        gate_release(release, with_policy(**WEAK[check]), small / "key.pub", now=NOW)
    ).keys() == {check}


def test_a_weak_lock_fails_on_r_and_what_follows(small: Path, tmp_path: Path) -> None:
    """A release that is worth as much as the unlocked model."""
    unlocked: dict[Start, int] = {**LEVELS, "release": 80}
    folder = make_release(tmp_path / "weak", small / "key", (audit(images(2), levels=unlocked),))
    said = failing(gate_release(folder, STRICT, small / "key.pub", now=NOW))
    assert said.keys() == {
        f"target-1: {name}"
        for name in ("verdict", "advantage removed", "SLC-AUC", "worst attacker")
    }


def test_quick_satisfies_only_a_policy_that_names_it(small: Path, tmp_path: Path) -> None:
    """Not by default, and not under another suite's name: a suite has its attackers."""
    quick = audit(images(2), "quick")
    folder = make_release(tmp_path / "quick", small / "key", (quick,))
    assert "target-1: suite" in failing(gate_release(folder, STRICT, small / "key.pub", now=NOW))
    named = with_policy(suites=("quick",), verdicts=("indicative only",))
    assert gate_release(folder, named, small / "key.pub", now=NOW).passed
    renamed = renamed_to_standard(quick)
    folder = make_release(tmp_path / "renamed", small / "key", (renamed,))
    said = failing(gate_release(folder, STRICT, small / "key.pub", now=NOW))
    assert "without head-then-all, full" in said["target-1: suite"]


def renamed_to_standard(quick: TransferAudit) -> TransferAudit:
    """The same points under a stronger suite's name, with the verdict that these would give."""
    from lockforge.evidence.curves import verdict

    return quick.model_copy(
        update={"suite": "standard", "verdict": verdict(quick.measures, "standard")}
    )


def test_without_a_key_and_without_signers_nothing_passes(
    release: Path, small: Path, tmp_path: Path
) -> None:
    """Neither a signature by whoever, nor none at all, nor another's with the key."""
    assert failing(gate_release(release, STRICT, now=NOW)).keys() == {"signer", "age"}
    (release / "model.sig").unlink()
    from lockforge.evidence.manifest import write_manifest

    write_manifest(release)
    for policy in (STRICT, with_policy(signers=(fingerprint(load_public(small / "key.pub")),))):
        assert "signer" in failing(gate_release(release, policy, now=NOW))
    sign_folder(release, new_key(tmp_path / "other"))
    assert "signature" in failing(gate_release(release, STRICT, small / "key.pub", now=NOW))


@pytest.mark.parametrize("name", ["none", "file"])
def test_a_release_that_is_not_there_fails(name: str, tmp_path: Path) -> None:
    """No folder, or a file in its place."""
    (tmp_path / "file").write_text("")
    assert failing(gate_release(tmp_path / name, STRICT)).keys() == {"release"}


def test_an_empty_folder_fails_everything(tmp_path: Path, small: Path) -> None:
    """Not one check passes by default."""
    (tmp_path / "empty").mkdir()
    found = gate_release(tmp_path / "empty", STRICT, small / "key.pub", now=NOW)
    assert [check.name for check in found.checks if check.passed] == []


def test_a_link_in_the_release_fails(release: Path, small: Path) -> None:
    """What cannot even be listed has one failed check, and is no pass for lack of others."""
    (release / "more").symlink_to(small)
    assert not gate_release(release, STRICT, small / "key.pub", now=NOW).passed


# Regression against a baseline


def test_falling_behind_a_baseline_fails_and_says_where(small: Path, tmp_path: Path) -> None:
    """The same targets, otherwise or worse audited, or no more; a sound baseline of an allowed
    signer.
    """
    worse: dict[Start, int] = {**LEVELS, "release": 46}
    now_ = make_release(tmp_path / "now", small / "key", (audit(images(2), levels=worse),))
    policy = Policy(
        attestation="optional",
        verdicts=("delays", "protects under this suite"),
        baseline=str(small / "release"),
    )
    said = failing(gate_release(now_, policy, small / "key.pub", now=NOW))
    assert "advantage removed 0.8500, before 1.0000" in said["baseline"]
    assert "SLC-AUC" in said["baseline"]
    assert gate_release(
        now_, policy.model_copy(update={"baseline_tolerance": 0.2}), small / "key.pub", now=NOW
    ).passed
    two = make_release(tmp_path / "two", small / "key", (AUDIT, audit(images(3))))
    behind = failing(
        gate_release(
            small / "release",
            policy.model_copy(update={"baseline": str(two)}),
            small / "key.pub",
            now=NOW,
        )
    )
    assert behind["baseline"] == "target-2 was not audited again"
    foreign = make_release(tmp_path / "foreign", tmp_path / "other", (AUDIT,))
    said = failing(
        gate_release(
            now_, policy.model_copy(update={"baseline": str(foreign)}), small / "key.pub", now=NOW
        )
    )
    assert said["baseline"].startswith("the baseline's signer")
    (foreign / "more").write_text("")
    said = failing(
        gate_release(
            now_, policy.model_copy(update={"baseline": str(foreign)}), small / "key.pub", now=NOW
        )
    )
    assert said["baseline"].startswith("the baseline is not sound")


# Policies


def test_every_fault_of_a_policy_is_named_at_once(tmp_path: Path) -> None:
    """Unknown keys, wrong types, values out of range, tables, unknown recipes and keys that are
    none.
    """
    (tmp_path / "policy.yaml").write_text(
        "seeds_at_least: three\nsource_accuracy_at_least: 1.5\nno_such_key: 1\nparity: {again: "
        "true}\nrecipes: [nobodys]\n"
        'signers: [none.pub]\nallow_nothing_to_protect: "yes"\nmax_age_days: '
        ".inf\nremoved_at_least: true\n"
    )
    with pytest.raises(RecipeError) as caught:
        read_policy(tmp_path / "policy.yaml")
    said = "\n".join(caught.value.faults)
    for key in (
        "seeds_at_least",
        "source_accuracy_at_least",
        "no_such_key",
        "parity",
        "nobodys",
        "none.pub",
        "allow_nothing",
        "max_age_days",
        "removed_at_least",
    ):
        assert key in said, key
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "quick",
        "a: 1\na: 2",
        "1: 2",
        "!!python/object:os.system {}",
        "\x00",
        "a: [",
        "&a [*a, *a]",
        "suites: []",
    ],
)
def test_what_is_no_policy_is_refused(text: str, tmp_path: Path) -> None:
    """Nothing, lists, words, doubled keys, code, noise: each is the policy's fault, and none is a
    policy that asks for nothing.
    """
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(RecipeError):
        read_policy(tmp_path / "policy.yaml")


def test_keys_and_baselines_are_looked_for_beside_the_policy(tmp_path: Path, small: Path) -> None:
    """A policy in a repository names what lies there, wherever the job runs."""
    shutil.copy(small / "key.pub", tmp_path / "owner.pub")
    (tmp_path / "policy.yaml").write_text(
        "signers: [owner.pub]\nbaseline: last\nrecipes: [digits]\nmax_age_days: 1e2\n"
    )
    policy = read_policy(tmp_path / "policy.yaml")
    assert policy.signers == (fingerprint(load_public(small / "key.pub")),)
    assert policy.baseline == str(tmp_path / "last")
    assert policy.max_age_days == 100


KEYS = st.sampled_from([*Policy.model_fields, "x"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.text(max_size=8), max_size=3),
    st.sampled_from(
        [
            "quick",
            "any",
            "optional",
            "1e400",
            "-.inf",
            "2026-01-01",
            ["quick", "full"],
            ["moot", "no protection"],
        ]
    ),
)


@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=st.dictionaries(KEYS, VALUES, max_size=6))
@example(tree={"signers": [], "suites": ["quick"]})
def test_no_policy_gives_a_traceback_or_lets_an_unsigned_release_pass(
    tree: dict[str, object], tmp_path: Path, unsigned: Path
) -> None:
    """Whatever is asked for, in whatever types: a fault of the policy, or a gate that says no for
    want of a signer.
    """
    (tmp_path / "policy.yaml").write_text(json.dumps(tree))
    try:
        policy = read_policy(tmp_path / "policy.yaml")
    except RecipeError:
        return
    assert not gate_release(unsigned, policy, now=NOW).passed


@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=40))
def test_no_text_is_a_policy_by_chance(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Noise is refused as a policy, never taken for one."""
    path = tmp_path_factory.getbasetemp() / "noise.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(LockForgeError):
        read_policy(path)


@pytest.fixture(scope="session")
def unsigned(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release without a signature."""
    from lockforge.evidence.manifest import write_manifest

    folder = tmp_path_factory.mktemp("unsigned") / "release"
    shutil.copytree(small / "release", folder)
    (folder / "model.sig").unlink()
    write_manifest(folder)
    return folder


# What other tools read

NASTY = Check(
    name="t\x00: suite",
    value="a|b <script> `x` ]]> & [l](http://e)\x1b[2J",
    bound="\N{RIGHT-TO-LEFT OVERRIDE}x",
    passed=False,
)


def test_junit_has_a_case_a_check_and_a_failure_where_it_failed() -> None:
    """Read back by a parser; a verdict without checks is a failure, since a file without failures
    would pass.
    """
    fine = Check(name="manifest", value="ok", bound="ok", passed=True)
    bad = NASTY.model_copy(update={"name": "t: suite", "value": "<&>]]>\"'", "bound": "x"})
    # our own
    root = ET.fromstring(ci_files.junit(Verdict(checks=(fine, bad)), "release"))  # noqa: S314
    assert root.find("testsuite").attrib["failures"] == root.attrib["failures"] == ("1")  # type: ignore[union-attr]
    cases = {case.attrib["name"]: case.find("failure") for case in root.iter("testcase")}
    assert cases["manifest"] is None
    assert cases["t: suite"].attrib["message"] == "<&>]]>\"'"  # type: ignore[union-attr]
    # our own
    assert ET.fromstring(ci_files.junit(Verdict(checks=()), "release")).attrib["failures"] == ("1")  # noqa: S314


def test_sarif_has_a_result_for_each_failure_and_names_no_machine() -> None:
    """The parts that the standard and code scanning require; a policy elsewhere is named without
    its way there.
    """
    fine = Check(name="manifest", value="ok", bound="ok", passed=True)
    bad = Check(name="target 1: verdict", value="delays", bound="protects", passed=False)
    log = json.loads(
        ci_files.sarif(Verdict(checks=(fine, bad)), Path("/somewhere/a policy.yaml"), "0.1.0")
    )
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    (result,) = run["results"]
    assert (
        run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "verdict"
    )
    assert result["message"]["text"] == "target 1: verdict: delays (wanted: protects)"
    assert (
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20policy.yaml"
    )


def test_the_summary_is_a_table_whose_cells_stay_cells() -> None:
    """Bars, tags, links and mentions in what a release says mean nothing in the summary."""
    text = ci_files.summary(Verdict(checks=(NASTY,)), "release")
    row = text.splitlines()[-2]
    assert row.count("|") - row.count("\\|") == 5
    assert "\\<script\\>" in row
    assert "\\[l\\]\\(http\\:" in row


def test_the_words_of_a_release_are_printable_and_on_one_line(small: Path, tmp_path: Path) -> None:
    """A target named after a workflow command and an escape sequence comes out harmless."""
    folder = make_release(tmp_path / "named", small / "key", (AUDIT,))
    edit_json(
        folder / "report.json",
        lambda t: t["roles"].update(names=["source", "x\n::set-env name=A::b\x1b[2J"]),
    )
    sign_folder(folder, load_private(small / "key"))
    found = gate_release(folder, STRICT, small / "key.pub", now=NOW)
    assert all((check.name + check.value + check.bound).isprintable() for check in found.checks)
    ET.fromstring(ci_files.junit(found, "named"))  # noqa: S314


def test_the_command_writes_its_files_whatever_the_verdict_and_appends_its_summary(
    release: Path, small: Path, tmp_path: Path
) -> None:
    """Into folders that are not there yet; twice gives two summaries; the answer as JSON is the
    verdict.
    """
    (tmp_path / "policy.yaml").write_text("attestation: required\n")
    words = [
        "gate",
        str(release),
        "--policy",
        str(tmp_path / "policy.yaml"),
        "--key",
        str(small / "key.pub"),
        "--json",
    ]
    files = {name: tmp_path / "out" / name for name in ("junit", "sarif", "summary")}
    for _ in range(2):
        done = CliRunner().invoke(
            app, words + [word for name, path in files.items() for word in (f"--{name}", str(path))]
        )
        assert done.exit_code == 1, done.output
    answer = json.loads(done.stdout)
    assert [check["name"] for check in answer["checks"] if not check["passed"]] == ["attested"]
    assert not answer["passed"]
    # our own
    assert ET.fromstring(files["junit"].read_text()).attrib["failures"] == "1"  # noqa: S314
    assert [
        result["ruleId"] for result in json.loads(files["sarif"].read_text())["runs"][0]["results"]
    ] == ["attested"]
    assert files["summary"].read_text().count("does not pass the gate") == 2


def test_parity_is_said_in_the_words_that_the_gate_looks_for() -> None:
    """The gate reads the report's one line on parity: the words come from one place and must not
    drift.
    """
    same = np.zeros((1, 2), dtype=np.float32)
    assert str(compare(same, same)).startswith(ALIKE)
    assert not str(compare(same, same + 1)).startswith(ALIKE)
