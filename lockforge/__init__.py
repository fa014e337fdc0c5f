"""LockForge: lock an image model to its own task, then prove what a thief would still get out of
it.

The map of the house. Nouns are shared rooms: `data` (images and roles), `spaces` (cells and
networks), `engine` (the one training loop), `evidence` (curves, statistics, manifests, signatures;
no torch). Verbs are stages, each a plain function from frozen records to a frozen record: `embed`,
`search`, `train`, `prune`, `audit`, `export`. `pipeline` is the only place that knows their order,
`plan` says it without doing it, `executors` are where independent pieces of it are done. `verify`
checks a release, `gate` holds it against a policy.

The names below are the public surface; those that need torch are loaded on first use.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

from lockforge.errors import (
    DataError,
    IntegrityError,
    InterruptedRunError,
    LockForgeError,
    OutcomeError,
    RecipeError,
    ResourceError,
)

__version__ = version("lockforge")

_WHERE = {
    "Artifact": "records",
    "Policy": "policy",
    "Recipe": "recipe",
    "Report": "records",
    "Roles": "records",
    "Runs": "runs",
    "TransferAudit": "records",
    "audit_transfer": "audit.stage",
    "embed_task": "embed.stage",
    "export_artifact": "export.stage",
    "gate_release": "gate",
    "make_executor": "executors",
    "make_plan": "plan.estimate",
    "open_runs": "pipeline",
    "protect": "pipeline",
    "prune_model": "prune.stage",
    "read_policy": "policy",
    "read_recipe": "recipe",
    "read_roles": "data.roles",
    "search_cell": "search.stage",
    "train_cell": "train.stage",
    "verify_release": "verify",
}

__all__ = [
    "Artifact",
    "DataError",
    "IntegrityError",
    "InterruptedRunError",
    "LockForgeError",
    "OutcomeError",
    "Policy",
    "Recipe",
    "RecipeError",
    "Report",
    "ResourceError",
    "Roles",
    "Runs",
    "TransferAudit",
    "__version__",
    "audit_transfer",
    "embed_task",
    "export_artifact",
    "gate_release",
    "make_executor",
    "make_plan",
    "open_runs",
    "protect",
    "prune_model",
    "read_policy",
    "read_recipe",
    "read_roles",
    "search_cell",
    "train_cell",
    "verify_release",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its room."""
    if name in _WHERE:
        return getattr(import_module(f"lockforge.{_WHERE[name]}"), name)
    raise AttributeError(f"lockforge has no public name {name!r}; it has {', '.join(__all__)}")
