"""Which weights can be pruned, and masks."""

import pytest
import torch
from torch import nn

from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.models.networks import build
from lockforge.prune._masks import (
    check_masks,
    kept_counts,
    layers_of,
    masks_of,
    prunable,
    sparsity_of,
)
from lockforge.randomness import torch_generator
from lockforge.records import NamedArchitecture


def test_norms_biases_and_the_head_are_left_alone() -> None:
    """Of a transformer: its patches, the projections of its attention and its hidden layers, and
    nothing else.
    """
    network = build(
        NamedArchitecture(name="vit_tiny-cifar", classes=3, shape=(1, 8, 8)),
        torch_generator(0, "vit"),
    )
    names = set(prunable(network))
    assert {
        "body.blocks.0.attn.qkv.weight",
        "body.blocks.0.attn.proj.weight",
        "body.blocks.0.mlp.fc1.weight",
    } <= names
    assert all(
        name.endswith(".weight") and "norm" not in name and not name.startswith("head")
        for name in names
    )
    assert all(dict(network.named_parameters())[name].dim() >= 2 for name in names)


def test_a_network_without_such_layers_is_refused() -> None:
    """It has only a head."""
    network = build(
        NamedArchitecture(name="resnet20-cifar", classes=3, shape=(1, 8, 8)),
        torch_generator(0, "empty"),
    )
    network.body = nn.Identity()
    with pytest.raises(DataError, match="no layer that can be pruned"):
        prunable(network)


@pytest.mark.parametrize("sparsity", [0.01, 0.5, 0.77, 0.9])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_have_the_sparsity_that_was_asked_for(sparsity: float, scope: str) -> None:
    """Up to rounding: one weight a layer, or one in all."""
    generator = torch_generator(0, "masks")
    weights = {
        "a": torch.randn(30, 4, generator=generator),
        "b": 2 * torch.randn(70, 3, 2, generator=generator),
    }
    masks = masks_of(weights, sparsity, scope)  # type: ignore[arg-type]  # one of the two words
    assert abs(sparsity_of(masks) - sparsity) <= 2 / 540
    for name, mask in masks.items():
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        kept = weights[name][mask.bool()].abs().min()
        assert bool((weights[name][~mask.bool()].abs() <= kept).all())
    if scope == "layer":
        assert all(
            int(mask.sum()) == mask.numel() - round(sparsity * mask.numel())
            for mask in masks.values()
        )


def test_a_layer_that_would_lose_everything_is_named() -> None:
    """By its own share, or because all its weights are small beside the others'."""
    small = {"stem": torch.ones(2, 2), "wide": torch.ones(100, 10)}
    with pytest.raises(RecipeError) as caught:
        kept_counts(small, 0.9, "layer")
    assert caught.value.faults == ("stem of 4 weights",)
    with pytest.raises(RecipeError, match="nothing of 1 layer"):
        kept_counts({"stem": torch.full((2, 2), 1e-3), "wide": torch.ones(100, 10)}, 0.5, "global")


def test_masks_of_another_network_are_refused_with_every_difference() -> None:
    """A missing one, a strange one and one of another shape."""
    network = build(
        NamedArchitecture(name="vgg6_bn_thin-cifar", classes=3, shape=(1, 8, 8)),
        torch_generator(0, "vgg"),
    )
    masks: dict[str, torch.Tensor] = {
        name: torch.ones_like(weight) for name, weight in prunable(network).items()
    }
    check_masks(masks, network)
    first, second, *_ = masks
    del masks[first]
    masks[second] = torch.ones(1)
    masks["head.weight"] = torch.ones(1)
    with pytest.raises(IntegrityError) as caught:
        check_masks(masks, network)
    assert len(caught.value.faults) == 3


def test_zeros_are_counted_by_layer() -> None:
    """Exact zeros only."""
    network = build(
        NamedArchitecture(name="vgg6_bn_thin-cifar", classes=3, shape=(1, 8, 8)),
        torch_generator(0, "vgg"),
    )
    first = next(iter(prunable(network).values()))
    with torch.no_grad():
        first[0] = 0.0
    assert [layer.zeros for layer in layers_of(network)] == [first[0].numel(), 0, 0, 0, 0]
