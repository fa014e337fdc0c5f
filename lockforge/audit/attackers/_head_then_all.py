"""Head, then all: a new head is trained on what the network sees, then every layer from there.

Kumar et al. 2022, arXiv:2202.10054: a random head distorts features before it is any good, a
trained one does not. Differs: the head is trained on standardised features, as our linear probe is,
and batch-norm statistics may be re-estimated first.
"""

from collections.abc import Sequence
from typing import cast

from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit._tuning import Prepared, every_rate, tune
from lockforge.audit.attackers._linear_probe import linear_probe
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    BatchNorm,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
)
from lockforge.models.classifier import Classifier
from lockforge.recipe import AuditRecipe

NORMS: tuple[BatchNorm, ...] = ("re-estimated", "source")


def settings(recipe: AuditRecipe, _facts: Capabilities) -> tuple[Setting, ...]:
    """The probe's rate, batch norm, optimiser, rate."""
    probes = dict.fromkeys(recipe.probe_rates)
    return tuple(
        one
        for rate in probes
        for norm in NORMS
        for one in every_rate(recipe, norm, (("probe", rate),))
    )


def head_then_all(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Train a head for each batch norm and rate of the probe, with a probe's whole budget; then
    everything, by halving.

    Each setting pays for its head, steps and operations, though several share it.
    """
    head_of = {
        setting: Setting("adam", float(dict(setting.also)["probe"]), setting.batch_norm)
        for setting in settings
    }
    probes = yield from linear_probe(
        given, data, tuple(dict.fromkeys(head_of.values())), budget, draw
    )
    probed = {one.setting: one for one in probes}
    starts: dict[Setting, Prepared] = {}
    for setting in settings:
        one = probed[head_of[setting]]
        starts[setting] = Prepared(cast("Classifier", one.network), one.operations, one.steps)
    return (yield from tune(starts, data, budget, draw))


HEAD_THEN_ALL = Attacker("head-then-all", head_then_all, settings)
