"""YAML -> frozen Policy: what a release must show before it may pass a gate.

A policy is flat: each key is a value or a list of words. What it does not name keeps its default,
and the defaults are strict.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lockforge.errors import RecipeError
from lockforge.evidence.signing import fingerprint, load_public
from lockforge.recipe import Positive, Rate, Unit, parse_yaml, read_recipe, says, shipped_recipes
from lockforge.records import Digest, Record, fault_lines

LARGEST = 2**20  # bytes of a policy file
_HEX = re.compile(r"[0-9a-f]{64}")

Suite = Literal["quick", "paper", "standard", "full"]
Word = Literal[
    "nothing to protect",
    "moot",
    "no protection",
    "delays",
    "protects under this suite",
    "indicative only",
]


class Policy(Record):
    """What a gate asks of a release. A key without a value is not asked for; a figure that is asked
    for must be there.
    """

    signers: Annotated[
        tuple[Digest, ...],
        says(
            "who may have signed: fingerprints, or public key files beside the policy; without "
            "any, the command says who"
        ),
    ] = ()
    attestation: Annotated[
        Literal["required", "optional"], says("whether attestation.json must be there")
    ] = "required"
    max_age_days: Annotated[
        Rate | None, says("days since the release was made, by the time that its signer states")
    ] = None
    recipes: Annotated[
        tuple[str, ...], says("allowed recipes: names of shipped ones, or digests; none allows all")
    ] = ()
    suites: Annotated[tuple[Suite, ...], Field(min_length=1), says("allowed audit suites")] = (
        "standard",
        "full",
    )
    seeds_at_least: Annotated[int, Field(ge=2), says("repetitions of every attack")] = 3
    targets_at_least: Annotated[Positive, says("audited targets")] = 1
    verdicts: Annotated[
        tuple[Word, ...], Field(min_length=1), says("allowed verdicts, on every target")
    ] = ("protects under this suite",)
    allow_nothing_to_protect: Annotated[
        bool,
        says(
            "let targets pass on which the unlocked model is worth no more than an empty one; "
            "their figures are not asked for"
        ),
    ] = False
    source_accuracy_at_least: Annotated[
        Unit | None, says("test accuracy of the release on its own task")
    ] = None
    removed_at_least: Annotated[
        Annotated[float, Field(le=1)] | None,
        says("lower end of R against the reference, the advantage removed, on every target"),
    ] = None
    slc_auc_at_most: Annotated[
        float | None,
        says("upper end of the SLC-AUC (natural log) of every attacker from the release"),
    ] = None
    worst_attacker_at_most: Annotated[
        Rate | None,
        says(
            "upper end of what a thief gets of the release, who may use every attacker, as a "
            "share of the unlocked model"
        ),
    ] = None
    parity: Annotated[
        Literal["stated", "again", "any"],
        says(
            "ONNX answers like the weights: by the signed report, asked again (torch), or never "
            "mind"
        ),
    ] = "stated"
    baseline: Annotated[
        str | None,
        says("an earlier release (a folder beside the policy) that this one may not fall behind"),
    ] = None
    baseline_tolerance: Annotated[
        float, Field(ge=0), says("by how much a figure may be worse than the baseline's")
    ] = 0.02


def read_policy(path: Path) -> Policy:
    """Read a policy. Key files and the baseline are looked for beside it; key files become
    fingerprints.

    Raises: RecipeError: unreadable, no table of values, unknown keys, wrong types, no such recipe
        or key; every fault at once.
    """
    tree, faults = _flat(_tree(path), path)
    signers = tree.get("signers")
    if isinstance(signers, list):
        tree["signers"] = [_fingerprint(one, path.parent, faults) for one in signers]
    recipes = tree.get("recipes")
    if isinstance(recipes, list):
        faults += [
            f"recipes: {name!r} is neither a digest nor a shipped recipe"
            for name in recipes
            if recipe_digest(name) is None
        ]
    if isinstance(tree.get("baseline"), str):
        tree["baseline"] = str(path.parent / tree["baseline"])
    try:
        policy = Policy.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        faults += fault_lines(error)
    except ValueError as error:
        faults.append(str(error))
    if faults:
        raise RecipeError(
            f"policy {path} has {len(faults)} fault(s)",
            faults=faults,
            hint="docs/gate.md lists every key",
        )
    return policy


def _tree(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise RecipeError(
                f"{path} has more than {LARGEST} bytes",
                hint="a policy is a short YAML file: see docs/gate.md",
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise RecipeError(
            f"no policy {path}: {error}", hint="give a YAML file; examples/policy.yaml is one"
        ) from error
    tree = parse_yaml(text, str(path), "policy")
    if not isinstance(tree, dict) or not tree:
        raise RecipeError(
            f"{path}: a policy is a table of keys, not {type(tree).__name__}",
            hint="examples/policy.yaml is one",
        )
    return tree


def _flat(tree: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    """The keys that hold a value or a list of words, and a fault for each other; numbers that JSON
    does not know are faults.
    """

    def plain(value: object) -> bool:
        return (
            value is None
            or isinstance(value, bool | int | str)
            or (isinstance(value, float) and value - value == 0)
        )

    def fits(value: object) -> bool:
        return plain(value) or (
            isinstance(value, list) and all(isinstance(one, str) for one in value)
        )

    faults = [
        f"{key}: neither a value nor a list of words, in {path.name}"
        for key, value in tree.items()
        if not fits(value)
    ]
    return {key: value for key, value in tree.items() if fits(value)}, faults


def _fingerprint(signer: str, folder: Path, faults: list[str]) -> str:
    """A fingerprint as it is; a key file's own. What cannot be read is a fault, and stands as a
    fingerprint that nobody has.
    """
    if _HEX.fullmatch(signer):
        return signer
    try:
        return fingerprint(load_public(folder / signer))
    except (RecipeError, ValueError) as error:
        faults.append(
            f"signers: {signer!r} is neither a fingerprint (64 hex digits) nor a public key: "
            f"{error}".splitlines()[0]
        )
        return "0" * 64


def recipe_digest(name: str) -> str | None:
    """The digest of an allowed recipe: given as it is, or a shipped recipe's; None where there is
    no such recipe.
    """
    if _HEX.fullmatch(name):
        return name
    return read_recipe(name).digest if name in shipped_recipes() else None
