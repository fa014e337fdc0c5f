"""The script that makes the packaged probe, on a scale that takes a second."""

import torch

from lockforge.embed.probe import ProbeNetwork
from tools.train_probe import RECIPE, packed, train_probe


def test_training_is_reproducible_and_learns() -> None:
    """Two runs from one seed give the same tensors; 32 steps on 64 images bring the loss well
    under that of guessing (ln 128 = 4.85).
    """
    recipe = RECIPE.model_copy(update={"epochs": 8, "batch_size": 16})
    (one, fitted), (two, _) = (train_probe(0, 64, 16, recipe) for _ in range(2))
    assert all(torch.equal(tensor, packed(two)[name]) for name, tensor in packed(one).items())
    assert fitted.history[-1].loss < 4


def test_what_ships_is_the_network_without_its_head() -> None:
    """Every tensor of the network but the head's; convolutions in half precision, within its
    rounding.
    """
    network = ProbeNetwork(4, torch.Generator().manual_seed(0))
    tensors, whole = packed(network), network.state_dict()
    assert tensors.keys() == {name for name in whole if not name.startswith("head.")}
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.float16 if tensor.ndim == 4 else whole[name].dtype)
        torch.testing.assert_close(
            tensor.to(whole[name].dtype), whole[name], rtol=2**-10, atol=1e-6
        )
