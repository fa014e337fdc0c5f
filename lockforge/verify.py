"""Is this release what was signed, and do its figures follow from its raw points? One check a line;
torch only where ONNX is compared.

Each check is made with what the checks before it left trustworthy: nothing is run from a release
whose bytes are not what they were.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lockforge.errors import DataError, IntegrityError, RecipeError, ResourceError
from lockforge.evidence.attestation import ATTESTATION, check_attestation
from lockforge.evidence.bare_weights import bare_digest
from lockforge.evidence.curves import overall
from lockforge.evidence.faults import checkpoint_faults, faults_of, first_of, start_faults, unlike
from lockforge.evidence.manifest import (
    SIGNATURE,
    Manifest,
    check_manifest,
    hash_file,
    hash_folder,
    read_limited,
    read_manifest,
)
from lockforge.evidence.signing import NOBODY, Trust, load_public, verify_folder
from lockforge.evidence.statistics import target_tests
from lockforge.evidence.zeros import pruning_faults, zero_faults
from lockforge.recipe import Recipe, read_recipe
from lockforge.records import (
    AnyArchitecture,
    Artifact,
    Check,
    FileRef,
    Report,
    Verdict,
    fault_lines,
    origin_of,
)

if TYPE_CHECKING:
    import numpy as np

    from lockforge.evidence.keyless import Identity

    Array = np.ndarray[Any, Any]

WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
INT8 = "model.int8.onnx"
LARGEST_PROBE = 2**28  # numbers in all parity inputs together
BOUNDS = {
    "manifest": "every file as listed, none else",
    "signature": "signed by the given key",
    "report": "a whole report with its own recipe",
    "attestation": "by the same key, of these very bytes and figures",
    "table": "the columns of a table of curves, a number in each place",
    "points": "possible points on one grid, chosen by validation",
    "areas": "at most ln(x_max / x_min), and what the points give",
    "figures": "all follow from the raw points",
    "weights": "the tensors the report names",
    "parity": "ONNX answers like the weights",
}


@dataclass(frozen=True)
class Release:
    """A release folder as it lies there, each file hashed once. `report_name`: the file that holds
    the report.
    """

    folder: Path
    found: Mapping[str, FileRef]
    report_name: str = "report.json"

    def read(self, name: str) -> bytes:
        """The bytes of a small file that was hashed, the same that were hashed.

        Raises: IntegrityError: missing, far too large, or changed since.
        """
        data = read_limited(self.folder / name)
        if name not in self.found or hashlib.sha256(data).hexdigest() != self.found[name].sha256:
            raise IntegrityError(
                f"{name} is missing"
                if name not in self.found
                else f"{name} changed while it was read"
            )
        return data

    @cached_property
    def manifest(self) -> Manifest:
        """The list of files, and who is said to have signed them.

        Raises: IntegrityError: missing or malformed.
        """
        return read_manifest(self.folder)

    @cached_property
    def report(self) -> Report:
        """The report, whole.

        Raises: IntegrityError: missing or malformed.
        """
        return Report.from_json(self.read(self.report_name))

    @cached_property
    def recipe(self) -> Recipe:
        """The report's own recipe.

        Raises: IntegrityError: it is none.
        """
        try:
            return Recipe.model_validate(self.report.recipe)
        except ValidationError as error:
            raise IntegrityError(
                f"the report's recipe has {error.error_count()} fault(s)", faults=fault_lines(error)
            ) from error

    @cached_property
    def tensors(self) -> dict[str, "Array"]:
        """The tensors of model.safetensors.

        Raises: IntegrityError: missing or malformed.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return dict(load((self.folder / WEIGHTS).read_bytes()))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{WEIGHTS} cannot be read: {error}") from error


def verify_release(
    folder: Path,
    public_key: Path | None = None,
    *,
    trusted: Path | None = None,
    identity: "Identity | None" = None,
    parity: bool = True,
) -> Verdict:
    """Check a release.

    Args: public_key: the signer's, from somewhere else than the release; without it the bytes are
    checked but nobody's name is proved. trusted: certificates (PEM) that the signer's certificate
    must lead to, in place of the key or beside it. identity: who must have signed keyless, in place
    of both. parity: compare model.onnx with the weights too, where torch and onnxruntime are
    installed.
    Returns: one check for each key of `BOUNDS` in order, `value` saying in one line what was found.
    Raises: RecipeError: no such folder, or the key file is no key. ResourceError: Sigstore, where
        it is asked for, cannot be used.
    """
    return examine(folder, trust_of(public_key, trusted, identity), parity=parity)[0]


def trust_of(
    public_key: Path | None = None, trusted: Path | None = None, identity: "Identity | None" = None
) -> Trust:
    """What a reader brought, read from its files: the signer's public key, certificates that he
    trusts, or who must have signed keyless.

    Raises: RecipeError: one of them is none, or a key beside an identity.
    """
    if identity:
        if public_key or trusted:
            raise RecipeError(
                "a signature is either keyless or made with a key",
                hint="give the identity, or the key or certificates",
            )
        return Trust(identity=identity)
    if trusted is None:
        return Trust(load_public(public_key) if public_key else None)
    from lockforge.evidence.certificates import read_certificates

    return Trust(load_public(public_key) if public_key else None, read_certificates(trusted))


def verify_report(path: Path) -> Verdict:
    """Check a bare report: that it is whole and that every figure follows from its points. Nobody
    signed it, and no bytes are bound to it.

    Returns: one check each for report and figures.
    Raises: RecipeError: there is no such file.
    """
    release = Release(path.parent, {path.name: _hashed(path)}, path.name)
    checks: list[Check] = []
    for name, look in (("report", _report), ("figures", _figures)):
        try:
            value, passed = (
                (look(release), True)
                if not checks or checks[0].passed
                else ("not checked, since the report failed", False)
            )
        except IntegrityError as error:
            value, passed = ": ".join(filter(None, (error.message, first_of(error.faults)))), False
        checks.append(Check(name=name, value=value, bound=BOUNDS[name], passed=passed))
    return Verdict(checks=tuple(checks))


def verify_curves(path: Path) -> tuple[Verdict, dict[str, Any]]:
    """Check a table of anybody's curves (CSV, see `evidence.curve_tables`), and work out what
    follows from it.

    Returns: one check each for table, points and areas; and the figures, none where a check failed.
    Raises: RecipeError: there is no such file.
    """
    from lockforge.evidence.curve_tables import figures_of, read_table

    _hashed(path)
    table = read_table(path)
    lines = {"table": table.unreadable, "points": table.impossible, "areas": table.unlike}
    checks = [
        Check(
            name=name,
            value=first_of(faults) if faults else f"{len(table.points)} points",
            bound=BOUNDS[name],
            passed=not faults,
        )
        for name, faults in lines.items()
    ]
    return Verdict(checks=tuple(checks)), {} if any(lines.values()) else figures_of(table.points)


def _hashed(path: Path) -> FileRef:
    try:
        return hash_file(path)
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}",
            hint="give a release folder, a report.json or a .csv",
        ) from error


def examine(
    folder: Path, trust: Trust = NOBODY, *, parity: bool = True
) -> tuple[Verdict, Release | None]:
    """`verify_release`, and the release as it was read, for whoever has more to ask; None where its
    files cannot be listed.
    """
    checks: list[Check] = []

    def check(name: str, look: Callable[[], str], *after: str) -> None:
        """Look, unless a check this one builds on has failed."""
        failed = [
            earlier.name for earlier in checks if earlier.name in after and not earlier.passed
        ]
        try:
            value, passed = (
                (f"not checked, since the {failed[0]} failed", False) if failed else (look(), True)
            )
        except IntegrityError as error:
            value, passed = ": ".join(filter(None, (error.message, first_of(error.faults)))), False
        checks.append(Check(name=name, value=value, bound=BOUNDS[name], passed=passed))

    try:
        release = Release(folder, hash_folder(folder))
    except IntegrityError as error:
        return Verdict(
            checks=(
                Check(name="manifest", value=error.message, bound=BOUNDS["manifest"], passed=False),
            )
        ), None
    check("manifest", lambda: _manifest(release))
    check("signature", lambda: _signature(release, trust))
    # Nothing of a release is read further once its list of files or its signature has failed.
    check("report", lambda: _report(release), "manifest", "signature")
    check("attestation", lambda: _attestation(release, trust), "manifest", "signature", "report")
    check("figures", lambda: _figures(release), "report")
    check("weights", lambda: _weights(release), "report")
    check(
        "parity",
        lambda: _parity(release, wanted=parity),
        "manifest",
        "signature",
        "report",
        "weights",
    )
    return Verdict(checks=tuple(checks)), release


def _manifest(release: Release) -> str:
    manifest = release.manifest
    faults = [
        *check_manifest(manifest, release.found),
        *(f"{name} is not listed" for name in Artifact.required if name not in manifest.files),
    ]
    if faults:
        raise IntegrityError(first_of(faults))
    size = sum(ref.size for ref in manifest.files.values())
    return f"{len(manifest.files)} files as listed, {size / 2**20:.1f} MiB"


def _signature(release: Release, trust: Trust) -> str:
    if trust == NOBODY and SIGNATURE not in release.found and release.manifest.signer is None:
        return "NOT SIGNED: anyone may have made this release"
    signer = verify_folder(release.folder, trust, release.found)
    ignored = (
        f"; the signer's ignore list hides nothing here: {', '.join(signer.ignored)}"
        if signer.ignored
        else ""
    )
    if not signer.established:
        return (
            "signer not established: "
            f"{signer}"
            f"{'; --identity and --identity-provider ask for one' if signer.keyless else ''}"
            f"{ignored}"
        )
    return f"signed by {'' if signer.name else 'the given key '}{signer}{ignored}"


def _report(release: Release) -> str:
    """The report can be read, is about its own roles, and holds the recipe that lies beside it."""
    report, recipe = release.report, release.recipe
    if "recipe.yaml" in release.found:
        try:
            beside = read_recipe(str(release.folder / "recipe.yaml"))
        except RecipeError as error:
            raise IntegrityError(f"recipe.yaml: {error.message}", faults=error.faults) from error
        faults = (
            unlike(report.recipe, beside.model_dump(mode="json"), "recipe")
            if beside != recipe
            else []
        )
        if faults:
            raise IntegrityError("recipe.yaml is another recipe than the report's", faults=faults)
    _same_source(release)
    if report.int8 and report.int8.file != release.found.get(INT8):
        raise IntegrityError(f"{INT8} is not the file whose accuracy the report gives")
    targets = [images.digest for images in report.roles.targets]
    if [audit.target for audit in report.audits] != targets:
        raise IntegrityError(
            f"the report has {len(report.audits)} audits, which are not of its {len(targets)} "
            "targets in order"
        )
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        said, found = (
            (one.suite, len(seeds))
            for one, seeds in ((recipe.audit, range(recipe.audit.seeds)), (audit, audit.seeds))
        )
        if said != found:
            raise IntegrityError(
                f"{name}: audited by suite {found[0]} with {found[1]} seeds, where the recipe "
                f"says {said[0]} with {said[1]}"
            )
    return f"{len(report.audits)} audited target(s), suite {recipe.audit.suite}"


def _attestation(release: Release, trust: Trust) -> str:
    """attestation.json is signed with the key that signed the release, is of its files, and says
    what its report says.
    """
    if ATTESTATION not in release.found:
        return f"NOT ATTESTED: there is no {ATTESTATION}"
    signer = verify_folder(release.folder, trust, release.found)
    said = check_attestation(
        release.read(ATTESTATION),
        None if signer.keyless else signer.key,
        release.report,
        release.found,
    )
    curves = sum(len(audit.curves) for audit in said.audits)
    return f"{curves} curves of {len(said.audits)} target(s), bound to these bytes on {said.time}"


def _same_source(release: Release) -> None:
    """labels.json and preprocessing.json say what the report says of the source."""
    source = release.report.roles.source
    told = {
        "labels.json": list(source.classes),
        "preprocessing.json": {"mean": list(source.mean), "std": list(source.std)},
    }
    for name, wanted in told.items():
        if name not in release.found:
            continue
        try:
            found = json.loads(read_limited(release.folder / name))
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{name} is not JSON") from error
        if isinstance(wanted, dict) and isinstance(found, dict):
            found = {key: found.get(key) for key in wanted}
        if found != wanted:
            raise IntegrityError(f"{name} says something else of the source than the report")


def _figures(release: Release) -> str:
    report = release.report
    faults: list[str] = []
    for name, audit in zip(report.roles.target_names, report.audits, strict=True):
        faults += [
            f"{name}: {fault}"
            for fault in (*start_faults(audit, report.subjects), *faults_of(audit))
        ]
    for name in ("release", "twin", "reference"):
        faults += checkpoint_faults(getattr(report.subjects, name), name)
    faults += [
        fault
        for one in report.subjects.ablations
        for fault in checkpoint_faults(one.checkpoint, f"ablation:{one.name}")
    ]
    faults += unlike(report.verdict, overall([audit.verdict for audit in report.audits]), "verdict")
    tests = target_tests(report.roles.target_names, report.audits)
    faults += unlike(
        [one.model_dump() for one in report.tests], [one.model_dump() for one in tests], "tests"
    )
    faults += [*pruning_faults(report), *_rank_gaps(report, release.recipe.search.source_weight)]
    if faults:
        raise IntegrityError(first_of(faults))
    return f"all follow from {sum(len(audit.points) for audit in report.audits)} raw points"


def _rank_gaps(report: Report, weight: float) -> list[str]:
    """Rank gap = target rank - weight x source rank, for every candidate of the search that has
    both.
    """
    candidates = report.search.candidates if report.search else ()
    return [
        fault
        for i, candidate in enumerate(candidates)
        if candidate.target_rank is not None
        for fault in unlike(
            candidate.rank_gap,
            candidate.target_rank - weight * candidate.source_rank,
            f"search.candidates.{i}.rank_gap",
        )
    ]


def _weights(release: Release) -> str:
    """The tensors of model.safetensors, written without metadata, have the digest that the report
    names.
    """
    wanted = release.report.subjects.release.weights
    found, tensors = bare_digest(release.folder / WEIGHTS) or ("", 0)
    if found != wanted.sha256:  # or laid out in another way: safetensors itself says what is in it
        from safetensors.numpy import save

        found, tensors = hashlib.sha256(save(release.tensors)).hexdigest(), len(release.tensors)
    if found != wanted.sha256:
        raise IntegrityError(
            f"{WEIGHTS} holds other tensors than the report is about (sha256 {found[:12]}, not "
            f"{wanted.sha256[:12]})"
        )
    pruning = release.report.pruned.get("release")
    faults = zero_faults(pruning, release.tensors) if pruning else ()
    if faults:
        raise IntegrityError(f"{WEIGHTS} is not as sparse as the report says", faults=faults)
    return (
        f"{tensors} tensors, the ones that were "
        f"audited{f', {pruning.sparsity:.1%} zeros where pruned' if pruning else ''}"
    )


def _parity(release: Release, *, wanted: bool) -> str:
    """Ask both networks the same seeded questions, all at once and one alone: the batch axis must
    be free.
    """
    if not release.recipe.export.onnx:
        return "not checked: the recipe asks for no ONNX"
    if ONNX not in release.found:
        raise IntegrityError(f"{ONNX} is missing, although the recipe asks for it")
    if not wanted:
        return "not checked: switched off"
    if find_spec("onnxruntime") is None:
        return "not checked: onnxruntime is not installed (pip install 'lockforge[cpu]')"
    if origin_of(release.report.subjects.release.architecture) == "python":
        return (
            "not checked: a function of the owner's makes the network, and verify runs no code "
            "from elsewhere"
        )
    from lockforge.evidence.parity import compare, probe_inputs

    architecture, recipe = release.report.subjects.release.architecture, release.recipe
    numbers = recipe.export.parity_samples * math.prod(architecture.shape)
    if numbers > LARGEST_PROBE or min(architecture.shape) < 1:
        raise IntegrityError(
            f"the network is said to take inputs of shape {architecture.shape}, which cannot be "
            "asked"
        )
    inputs = probe_inputs(recipe.seed, recipe.export.parity_samples, architecture.shape)
    try:
        ours = _torch_logits(architecture, release.tensors, inputs)
    except ResourceError as error:
        return f"not checked: {error.message} ({error.hint})"
    together, alone = _onnx_logits(release.folder / ONNX, inputs)
    for found in (compare(ours[:1], alone), compare(ours, together)):
        if not found.same:
            raise IntegrityError(f"{ONNX} is another network than the weights: {found}")
    return str(found)


def _torch_logits(
    architecture: AnyArchitecture, tensors: "Mapping[str, Array]", inputs: "Array"
) -> "Array":
    import torch

    from lockforge.models.networks import load

    network = load(
        architecture, {name: torch.from_numpy(array) for name, array in tensors.items()}
    ).eval()
    try:
        with torch.inference_mode():
            logits: Array = network(torch.from_numpy(inputs)).numpy()
    except RuntimeError as error:
        raise IntegrityError(
            f"the network cannot take inputs of shape {architecture.shape}: {error}"
        ) from error
    return logits


def _onnx_logits(path: Path, inputs: "Array") -> "tuple[Array, Array]":
    from lockforge.models.read_onnx import Runtime

    try:
        runtime = Runtime(path.read_bytes(), ONNX)
        return runtime.run(inputs), runtime.run(inputs[:1])
    except DataError as error:
        raise IntegrityError(error.message) from error
