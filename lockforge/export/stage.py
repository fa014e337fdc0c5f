"""Export: all files of a release from what was found, then the folder itself, whole or not at
all.
"""

import json
from collections.abc import Callable
from pathlib import Path

from lockforge.data.batches import load_pool
from lockforge.errors import IntegrityError, ResourceError
from lockforge.evidence.curves import overall
from lockforge.evidence.manifest import (
    check_manifest,
    hash_folder,
    read_manifest,
    write_manifest,
)
from lockforge.evidence.statistics import target_tests
from lockforge.export.int8 import INT8, check_int8, measured, to_int8
from lockforge.export.onnx import parity_of, to_onnx
from lockforge.files import Files, whole_folder, write_whole
from lockforge.models.weights import write_weights
from lockforge.recipe import Recipe, to_yaml
from lockforge.records import (
    Artifact,
    ImageSet,
    Provenance,
    Report,
    Roles,
    SearchResult,
    Subjects,
    TaskEmbedding,
    TransferAudit,
    WeightLock,
    canonical_json,
)
from lockforge.report.page import page
from lockforge.runs import Work, stage

NOT_ASKED = "not checked: the recipe asks for no ONNX"


@stage(version=3)
def export_artifact(
    roles: Roles,
    embeddings: tuple[TaskEmbedding, ...],
    found: SearchResult | None,
    subjects: Subjects,
    audits: tuple[TransferAudit, ...],
    lock: WeightLock,
    recipe: Recipe,
    *,
    work: Work,
) -> Artifact:
    """The files of a release. Nothing of the owner's data is in them but class names, counts,
    digests and channel means.

    Raises: OutcomeError: the ONNX file answers otherwise than the weights. ResourceError: int8 is
        asked for without onnxruntime.
    """
    release, source = subjects.release, roles.source
    content: dict[str, bytes] = {
        "model.safetensors": write_weights(release, source, recipe, work.files)
    }
    parity, int8 = NOT_ASKED, None
    if recipe.export.int8:
        check_int8()
    if recipe.export.onnx:
        work.report(1, 4, "writing ONNX")
        tensors = work.files.get_tensors(release.weights)
        content["model.onnx"] = to_onnx(release.architecture, tensors, recipe.export)
        work.report(2, 4, "comparing ONNX with the weights")
        parity = parity_of(
            release.architecture, tensors, content["model.onnx"], recipe.export, recipe.seed
        )
    if recipe.export.int8:
        train, test = (load_pool(source, split, work.files) for split in ("train", "test"))
        content[INT8] = to_int8(content["model.onnx"], train, recipe.seed)
        int8 = measured(content[INT8], train, test)
    vectors = [work.files.get_arrays(embedding.vector)["fisher"] for embedding in embeddings]
    report = Report(
        recipe=recipe.model_dump(mode="json"),
        roles=roles,
        embeddings=embeddings,
        cosines=tuple(tuple(_cosine(a, b) for b in vectors) for a in vectors),
        search=found,
        pruned=lock.pruned,
        subjects=subjects,
        audits=audits,
        tests=target_tests(roles.target_names, audits),
        parity=parity,
        int8=int8,
        verdict=overall([audit.verdict for audit in audits]),
    )
    work.report(3, 4, "writing the report")
    content["report.json"] = report.to_json().encode()
    content["report.html"] = page(
        report, [[float(value) for value in vector] for vector in vectors]
    ).encode()
    content["recipe.yaml"] = to_yaml(recipe).encode()
    content["preprocessing.json"] = _preprocessing(source, recipe)
    content["labels.json"] = (
        json.dumps(list(source.classes), ensure_ascii=False, indent=1) + "\n"
    ).encode()
    files = {name: work.files.put(data) for name, data in content.items()}
    return Artifact(report=files["report.json"], files=files)


def check_place(out: Path) -> None:
    """Refuse a place where a release cannot be laid out, before any work.

    Raises: ResourceError: something else is there.
    """
    if out.is_symlink():
        raise ResourceError(f"{out} is a link", hint="give the folder itself")
    if out.absolute() == Path.cwd():
        raise ResourceError(
            f"{out} is the folder you are in: it cannot be replaced whole",
            hint="give the release a folder of its own",
        )
    try:
        empty = out.is_dir() and not any(out.iterdir())
        foreign = None if empty or not out.exists() else _not_a_release(out)
    except OSError as error:
        raise ResourceError(
            f"{out} cannot be read: {error.strerror}", hint="give a folder you may read and write"
        ) from error
    if foreign:
        raise ResourceError(
            f"{out} exists and is no LockForge release: {foreign}",
            hint="give another --out; only a folder that holds a whole release and nothing else is "
            "replaced",
        )


def _not_a_release(folder: Path) -> str | None:
    """Why a folder is not a release with just its own files; None where it is one."""
    if not folder.is_dir():
        return "it is no folder"
    try:
        manifest = read_manifest(folder)
        faults = [
            *(
                f"its manifest does not list {name}"
                for name in Artifact.required
                if name not in manifest.files
            ),
            *check_manifest(manifest, hash_folder(folder)),
        ]
    except IntegrityError as error:
        return error.message
    return faults[0] if faults else None


def lay_out(
    artifact: Artifact,
    files: Files,
    out: Path,
    provenance: Provenance,
    sign: Callable[[Path], None] | None,
) -> Path:
    """Write the folder beside its place, sign it there, and rename it: what is at `out` is whole.

    Args: sign: finishes the folder, manifest and signature included (see `seal.sealing`); None
        leaves it as it is, with a manifest only.
    Raises: ResourceError: the disk refuses, or something else is there.
    """
    check_place(out)
    with whole_folder(out, "the release") as part:
        for name, ref in artifact.files.items():
            write_whole(part / name, files.get(ref))
        write_whole(
            part / "provenance.json",
            (
                json.dumps(provenance.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
            ).encode(),
        )
        if sign:
            sign(part)
        else:
            write_manifest(part)
    return out


def _cosine(a: "object", b: "object") -> float:
    import numpy as np

    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.clip(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-300), -1, 1))


def _preprocessing(source: ImageSet, recipe: Recipe) -> bytes:
    c, h, w = source.shape
    value = {
        "input": "pixels",
        "shape": ["batch", c, h, w],
        "channels": "grey" if c == 1 else "RGB",
        "resize": {
            "width": w,
            "height": h,
            "kernel": "bilinear with antialiasing, 8 bits, as Pillow's Image.resize(..., BILINEAR)",
        },
        "value_range": [0, 255],
        "scale": "divide by 255, subtract mean, divide by std, channel by channel",
        "mean": list(source.mean),
        "std": list(source.std),
        "parity_seed": recipe.seed,
        "parity_samples": recipe.export.parity_samples,
    }
    return (canonical_json(value) + "\n").encode()
