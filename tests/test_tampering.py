"""Whatever is done to a release is caught: hundreds of small changes to every file, and what a
hostile maker could sign himself.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockforge.errors import IntegrityError
from lockforge.evidence.signing import (
    Trust,
    load_private,
    load_public,
    new_key,
    sign_folder,
    verify_folder,
)
from lockforge.gate import gate_release
from lockforge.policy import Policy
from lockforge.records import Verdict
from lockforge.verify import verify_release, verify_report
from tests.small_release import MADE, audit, edit_json, images, make_release

FILES = (
    "model.safetensors",
    "model.onnx",
    "report.json",
    "recipe.yaml",
    "labels.json",
    "preprocessing.json",
    "provenance.json",
    "manifest.json",
    "model.sig",
)
KINDEST = Policy(
    attestation="optional", suites=("quick",), verdicts=("indicative only",)
)  # what the release passes, untouched


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small quick release and its key, made once: `release/`, `key`, `key.pub`."""
    place = tmp_path_factory.mktemp("tampering")
    make_release(place / "release", place / "key", (audit(images(2), "quick"),))
    return place


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    """A copy of the release that a test may spoil."""
    shutil.copytree(made / "release", tmp_path / "release")
    return tmp_path / "release"


def caught(folder: Path, made: Path) -> bool:
    """Whether verify fails for want of the signed bytes without a key, and so does the signature
    alone with it.
    """
    found = verify_release(folder, parity=False)
    try:
        verify_folder(folder, Trust(load_public(made / "key.pub")))
    except IntegrityError:
        return bool(
            {"manifest", "signature"} & {check.name for check in found.checks if not check.passed}
        )
    return False


def test_the_untouched_release_passes(release: Path, made: Path) -> None:
    """Else everything below would prove nothing."""
    assert {path.name for path in release.iterdir()} == set(FILES)
    assert not caught(release, made)
    assert verify_release(release, made / "key.pub", parity=False).passed
    assert gate_release(release, KINDEST, made / "key.pub", now=MADE).passed


@pytest.mark.parametrize("name", FILES)
def test_every_byte_that_is_flipped_is_caught(name: str, release: Path, made: Path) -> None:
    """The ends of each file and evenly drawn places between, one bit of each, all eight bits in
    turn.
    """
    data = (release / name).read_bytes()
    inner = np.linspace(0, len(data) - 1, 16).astype(int).tolist()
    for turn, position in enumerate(sorted({*range(min(4, len(data))), *inner})):
        (release / name).write_bytes(
            data[:position] + bytes([data[position] ^ (1 << turn % 8)]) + data[position + 1 :]
        )
        assert caught(release, made), (name, position)


@pytest.mark.parametrize("name", FILES)
def test_what_is_cut_lengthened_emptied_renamed_or_removed_is_caught(
    name: str, release: Path, made: Path
) -> None:
    """A byte less, half, nothing; a byte more, a space, a line more; another name, hidden, in a
    folder; gone.
    """
    path, data = release / name, (release / name).read_bytes()
    more = (
        (data + b" ", data + b"\n") if name != "model.sig" else ()
    )  # white space in it says nothing, and nothing else signs it
    for changed in (
        data[: len(data) // 2],
        data[:-2],
        data[1:],
        b"",
        data + b"\0",
        data + data,
        *more,
    ):
        path.write_bytes(changed)
        assert caught(release, made), (name, len(changed))
    path.write_bytes(data)
    for other in (f"{name}2", f".{name}", name.upper(), f"in/{name}"):
        (release / other).parent.mkdir(exist_ok=True)
        path.rename(release / other)
        assert caught(release, made), (name, other)
        (release / other).rename(path)
    path.unlink()
    assert caught(release, made)


def test_every_two_files_that_are_swapped_are_caught(release: Path, made: Path) -> None:
    """All pairs."""
    for one, other in combinations(FILES, 2):
        first, second = (release / one).read_bytes(), (release / other).read_bytes()
        (release / one).write_bytes(second)
        (release / other).write_bytes(first)
        assert caught(release, made), (one, other)
        (release / one).write_bytes(first)
        (release / other).write_bytes(second)


@pytest.mark.parametrize(
    "name",
    [
        "extra",
        ".hidden",
        "model.safetensors.bak",
        "in/a/folder",
        "model.onnx.data",
        "MODEL.SIG",
        "attestation.json",
    ],
)
def test_every_file_that_is_added_is_caught(name: str, release: Path, made: Path) -> None:
    """Whatever it is called, wherever it lies, and though it be empty."""
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    for data in (b"", b"x"):
        (release / name).write_bytes(data)
        assert caught(release, made)


def test_parts_of_two_releases_of_one_owner_do_not_go_together(
    release: Path, made: Path, tmp_path: Path
) -> None:
    """Each file, alone or with the signature or with the manifest too, from another release that is
    signed by the same key.
    """
    other = make_release(tmp_path / "other", made / "key", (audit(images(3), "quick"),))
    (other / "model.onnx").write_bytes(b"another")
    (other / "labels.json").write_text('["a",  "b"]')
    sign_folder(other, load_private(made / "key"))
    for name in ("report.json", "model.onnx", "labels.json"):
        for more in ((), ("model.sig",), ("manifest.json",), ("model.sig", "manifest.json")):
            shutil.rmtree(release)
            shutil.copytree(made / "release", release)
            for part in (name, *more):
                shutil.copy(other / part, release / part)
            assert caught(release, made), (name, more)


def test_links_and_devices_are_refused(release: Path, made: Path, tmp_path: Path) -> None:
    """To the same bytes, out of the folder, to a folder, to nothing; and a pipe, which nobody waits
    for.
    """
    outside = tmp_path / "outside"
    shutil.copytree(release, outside)
    kinds: list[Callable[[Path], None]] = [
        lambda path: path.symlink_to(outside / path.name),
        lambda path: path.symlink_to(outside),
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.symlink_to("nowhere"),
        os.mkfifo,
    ]
    for name in ("report.json", "more"):
        for make in kinds:
            shutil.rmtree(release)
            shutil.copytree(outside, release)
            (release / name).unlink(missing_ok=True)
            make(release / name)
            assert caught(release, made), name


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../b", "C:\\x", "a\\b", "", ".", "a//b", "x\n"]
)
def test_a_manifest_that_leads_out_of_the_folder_is_refused_although_it_is_signed(
    name: str, release: Path, made: Path
) -> None:
    """The owner himself cannot list a file elsewhere."""
    edit_json(
        release / "manifest.json",
        lambda tree: tree["files"].update({name: tree["files"]["report.json"]}),
    )
    assert "manifest" in {
        check.name
        for check in verify_release(release, made / "key.pub", parity=False).checks
        if not check.passed
    }
    assert not gate_release(release, KINDEST, made / "key.pub", now=MADE).passed


def test_another_signer_is_caught_with_a_key_and_by_every_gate(
    release: Path, made: Path, tmp_path: Path
) -> None:
    """Signed again, rightly, by somebody else."""
    sign_folder(release, new_key(tmp_path / "other"))
    assert verify_release(release, parity=False).passed
    assert not verify_release(release, made / "key.pub", parity=False).passed
    assert not gate_release(release, KINDEST, made / "key.pub", now=MADE).passed
    assert not gate_release(release, KINDEST, now=MADE).passed


# Rightly signed, wrongly said


def numbers(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every number in a tree."""
    if isinstance(tree, bool):
        return
    if isinstance(tree, int | float):
        yield path
    for key, value in (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    ):
        yield from numbers(value, (*path, key))


def put(tree: Any, path: tuple[str | int, ...], change: Callable[[Any], Any]) -> None:
    """Change what lies at a path."""
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = change(tree[path[-1]])


def test_every_derived_figure_that_is_edited_is_caught_by_recomputing(
    made: Path, tmp_path: Path
) -> None:
    """A hundred and more numbers in measures and tests, each a thousandth off; the whole report
    stays well formed.
    """
    tree = json.loads((made / "release" / "report.json").read_text())
    ways = [("audits", 0, "measures", *way) for way in numbers(tree["audits"][0]["measures"])]
    ways += [("tests", *way) for way in numbers(tree["tests"])]
    assert len(ways) > 150
    for way in ways[:: max(1, len(ways) // 120)]:
        spoilt = json.loads(json.dumps(tree))
        put(spoilt, way, lambda value: value - 0.001 if value >= 0.001 else value + 0.001)
        (tmp_path / "report.json").write_text(json.dumps(spoilt))
        assert not verify_report(tmp_path / "report.json").passed, way


def test_every_point_that_is_edited_is_caught_unless_all_figures_follow(
    made: Path, tmp_path: Path
) -> None:
    """Accuracies, images, seeds and steps of points: one number changed fits no longer to the
    figures or to the others.
    """
    tree = json.loads((made / "release" / "report.json").read_text())
    ways = [("audits", 0, "points", *way) for way in numbers(tree["audits"][0]["points"])]
    for way in ways[:: max(1, len(ways) // 60)]:
        spoilt = json.loads(json.dumps(tree))
        put(
            spoilt,
            way,
            lambda value: value - 0.1 if isinstance(value, float) and value >= 0.1 else value + 1,
        )
        (tmp_path / "report.json").write_text(json.dumps(spoilt))
        if (
            way[-1] != "val_accuracy"
        ):  # a setting that is alone is chosen whatever it scores: a re-run finds it
            assert not verify_report(tmp_path / "report.json").passed, way


# Fuzzed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
PLAIN = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def gated(folder: Path, made: Path) -> Verdict:
    """The kindest gate, with the key; it verifies first."""
    return gate_release(folder, KINDEST, made / "key.pub", now=MADE)


def what_is_signed(folder: Path) -> Any:
    """The part of a signature file that says anything: the rest is its format's, and means nothing
    where a key is used.
    """
    try:
        envelope = json.loads((folder / "model.sig").read_text())["dsseEnvelope"]
        return envelope["payload"], envelope["signatures"][0]["sig"]
    except (KeyError, TypeError, IndexError):
        return None


def somewhere(tree: Any, data: st.DataObject) -> tuple[str | int, ...]:
    """A way into a tree, drawn at random, one key long at least."""
    path: list[str | int] = []
    while isinstance(tree, dict | list) and tree:
        key = data.draw(
            st.sampled_from(sorted(tree) if isinstance(tree, dict) else range(len(tree)))
        )
        path.append(key)
        tree = tree[key]
        if data.draw(st.booleans()):
            break
    return tuple(path)


@pytest.mark.parametrize(
    "name", ["report.json", "manifest.json", "model.sig", "provenance.json", "preprocessing.json"]
)
@settings(deadline=None, max_examples=20, suppress_health_check=PLAIN)
@given(data=st.data())
def test_no_fuzzed_json_gives_a_traceback_or_passes(
    name: str, data: st.DataObject, made: Path, tmp_path: Path
) -> None:
    """Any value anywhere in a file, signed again by somebody else or not at all: verify and gate
    say no, and say it in checks.
    """
    folder = tmp_path / "release"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made / "release", folder)
    tree = json.loads((folder / name).read_text())
    before = json.dumps(tree)
    put(tree, somewhere(tree, data), lambda _: data.draw(JSON))
    if json.dumps(tree) == before:
        return
    (folder / name).write_text(json.dumps(tree))
    untouched = name == "model.sig" and what_is_signed(folder) == what_is_signed(made / "release")
    assert untouched or not gated(folder, made).passed
    if name == "report.json":
        verify_report(folder / name)
    sign_folder(folder, load_private(made / "key"))
    gated(folder, made)


@settings(deadline=None, max_examples=20, suppress_health_check=PLAIN)
@given(text=st.binary(max_size=80), at=st.integers(0, 3000))
def test_no_noise_in_a_report_gives_a_traceback_or_passes(
    text: bytes, at: int, made: Path, tmp_path: Path
) -> None:
    """Bytes in the middle of a report, or in its place; signed by the owner, so that it is read."""
    folder = tmp_path / "release"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made / "release", folder)
    good = (folder / "report.json").read_bytes()
    for spoilt in (text, good[:at] + text + good[at:]):
        if spoilt.split() == good.split():
            continue
        (folder / "report.json").write_bytes(spoilt)
        sign_folder(folder, load_private(made / "key"))
        gated(folder, made)


# Files that claim to be large

HOSTILE = """
import json, resource, sys
from pathlib import Path
import torch, onnxruntime
from lockforge.errors import DataError
from lockforge.models.read_onnx import Runtime
from lockforge.verify import verify_release
large, *folders = map(Path, sys.argv[1:])
data = large.read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = 0
for each in (data, data[:-3], b"\\x08noise", b"\\xff" * 64):
    try:
        Runtime(each, "model.onnx")
    except DataError:
        refused += 1
found = [verify_release(folder, parity=False) for folder in folders]
failed = [[check.name for check in one.checks if not check.passed] for one in found]
print(json.dumps([refused, failed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


def test_files_that_claim_gigabytes_are_refused_without_taking_them(
    release: Path, made: Path, tmp_path: Path
) -> None:
    """A safetensors file whose header is said to be 4 GB, one whose tensor is 4 TB; an ONNX file
    whose tensor is: < 32 MiB.
    """
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    wide = b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    folders = []
    for name, length, header in (("long", 4 << 30, b"{}"), ("wide", len(wide), wide)):
        shutil.copytree(release, tmp_path / name)
        (tmp_path / name / "model.safetensors").write_bytes(length.to_bytes(8, "little") + header)
        sign_folder(tmp_path / name, load_private(made / "key"))
        folders.append(str(tmp_path / name))
    tensor = onnx.TensorProto(
        dims=[1 << 40], data_type=onnx.TensorProto.FLOAT, raw_data=b"\0" * 16, name="w"
    )
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [out], initializer=[tensor]
    )
    (tmp_path / "large.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    code = [sys.executable, "-c", HOSTILE, str(tmp_path / "large.onnx"), *folders]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, failed, kilobytes = json.loads(done.stdout)
    assert refused == 4
    assert all("weights" in names for names in failed)
    assert kilobytes < 32 * 1024
