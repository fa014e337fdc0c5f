"""The house holds: rooms open only onto allowed rooms, each extra has one door, every room is
packaged.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lockforge"
BASE = {"errors", "randomness"}
NOUNS = {"data", "spaces", "models", "engine", "evidence"}
VERBS = {"embed", "search", "train", "prune", "audit", "export"}
BONES = BASE | {"records", "recipe", "files", "runs", "jobs"}
MAY_IMPORT = {
    "errors": set(),
    "randomness": set(),
    "records": {"errors"},
    "recipe": {"errors", "records"},
    "tensors": set(),
    "files": {"errors", "records", "tensors"},
    "jobs": {"errors", "records", "runs"},
    "runs": {"errors", "records", "files", "jobs"},
    "executors": {"errors", "records", "files", "jobs", "runs"},
    **dict.fromkeys(NOUNS, BONES),
    "models": BONES | {"spaces"},
    **dict.fromkeys(VERBS, BONES | NOUNS),
    "report": BONES | {"evidence"},
    "export": BONES | NOUNS | {"report"},
    "predict": BONES | {"data", "evidence", "export", "models"},
    "verify": BONES | {"evidence", "models"},
    "policy": BONES | {"evidence"},
    "gate": BONES | {"evidence", "policy", "verify"},
    "benchmark": BONES | {"spaces", "search"},
    "pipeline": BONES | NOUNS | VERBS | {"executors"},
    "plan": BONES
    | NOUNS
    | VERBS
    | {
        "pipeline",
        "executors",
    },  # it says the pipeline's sentence, and asks each verb what it will train
    "cli": BONES
    | NOUNS
    | VERBS
    | {
        "predict",
        "report",
        "pipeline",
        "plan",
        "verify",
        "policy",
        "gate",
        "benchmark",
        "executors",
    },
    "__main__": {"cli"},
    "__init__": BONES
    | NOUNS
    | VERBS
    | {"pipeline", "plan", "executors", "verify", "policy", "gate"},
}
DOORS = {
    "onnxruntime": 2,
    "onnx": 3,
    "sklearn": 1,
    "jinja2": 1,
    "cryptography": 2,
    "rich": 1,
    "PIL": 1,
    "pyarrow": 1,
    "timm": 1,
    "ray": 1,
    "fsspec": 1,
    "sigstore": 1,
}


def imports_of(text: str) -> Iterator[str]:
    """Every module that a file imports anywhere, dotted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield base
            if base == "lockforge":
                yield from (f"lockforge.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    """The room that a file of the package lies in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def trespasses(room: str, text: str) -> set[str]:
    """Rooms that a file in `room` imports and may not."""
    opened = {name.split(".")[1] for name in imports_of(text) if name.startswith("lockforge.")}
    return opened - MAY_IMPORT[room] - {room}


FILES = sorted(PACKAGE.rglob("*.py"))
RUN_BY_NAME = {"executors.worker"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_opens_only_onto_allowed_rooms(path: Path) -> None:
    """Verbs import nouns, nouns import neither verbs nor one another; only the pipeline knows the
    sentence.
    """
    assert trespasses(room_of(path), path.read_text()) == set()


def test_the_rule_can_be_broken() -> None:
    """A verb that imports a verb, a noun that imports a noun and a search that opens a table are
    all noticed.
    """
    assert trespasses("search", "from lockforge.audit.stage import audit_transfer") == {"audit"}
    assert trespasses("engine", "def f():\n    import lockforge.data.batches") == {"data"}
    assert trespasses("train", "from lockforge import pipeline") == {"pipeline"}


def test_only_the_benchmark_opens_the_tables() -> None:
    """A search must never be able to see a benchmark's answers."""
    door = "lockforge.benchmark.tables"
    opened = {
        room_of(path)
        for path in FILES
        if any(name.startswith(door) for name in imports_of(path.read_text()))
    }
    assert opened == {"benchmark"}


def test_the_reader_of_pickles_has_one_way_in() -> None:
    """The official files and the pickles in them are opened by the tables alone."""
    tables = PACKAGE / "benchmark" / "tables"
    readers = {
        f"lockforge.benchmark.tables.{name}"
        for name in ("_archives", "_official", "_stand_ins", "_streams", "_unpickled")
    }
    opened = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if readers & set(imports_of(path.read_text())) and path.parent != tables
    }
    assert opened == set()
    assert not [
        path
        for path in FILES
        if {"pickle", "_pickle", "shelve", "dill", "joblib"} & set(imports_of(path.read_text()))
    ]


def test_evidence_and_verify_open_neither_torch_nor_scipy_at_start() -> None:
    """Anyone can check a release on a small machine: torch only inside verify's parity check."""
    for path in [
        *PACKAGE.glob("evidence/*.py"),
        *(PACKAGE / f"{room}.py" for room in ("verify", "policy", "gate")),
    ]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {name.split(".")[0] for name in imports_of(ast.unparse(node))}
                assert names.isdisjoint({"torch", "scipy", "onnxruntime"}), path


def test_modules_that_only_their_room_uses_begin_with_an_underscore() -> None:
    """The edge of a room is visible: a module without an underscore is used by another room."""
    users: dict[str, set[str]] = {}
    for path in FILES:
        text = path.read_text()
        names = set(imports_of(text)) | {
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        for name in names:
            users.setdefault(name, set()).add(room_of(path))
    public_names = (PACKAGE / "__init__.py").read_text()
    wrong = []
    for path in FILES:
        relative = path.relative_to(PACKAGE).with_suffix("")
        if room_of(path) == "records" or len(relative.parts) == 1:
            continue  # `records` exports its sections by its `__init__`
        if path.name in {"__init__.py", "stage.py"}:
            continue
        module = ".".join(relative.parts)
        others = users.get(f"lockforge.{module}", set()) - {room_of(path)}
        public = bool(others) or f'"{module}"' in public_names or module in RUN_BY_NAME
        if public == path.name.startswith("_"):
            wrong.append(f"{module}: used by {sorted(others) or 'its own room only'}")
    assert wrong == []


@pytest.mark.parametrize(("package", "doors"), DOORS.items())
def test_a_heavy_dependency_has_its_doors_and_no_more(package: str, doors: int) -> None:
    """What may be missing or replaced is imported in one file (ONNX: written, looked through,
    quantised; certificates).
    """
    opened = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        for name in imports_of(path.read_text())
        if name.split(".")[0] == package
    }
    assert 1 <= len(opened) <= doors, opened


def test_every_room_is_packaged() -> None:
    """A folder with code that pyproject.toml does not list would be missing from the wheel."""
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES}
    assert listed == there | {"lockforge.recipes"}
