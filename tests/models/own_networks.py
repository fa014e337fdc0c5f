"""Stand-ins for code that is not ours: a timm with one network, and a module with a function."""

from types import ModuleType
from typing import Any

import torch
from torch import nn

KNOWN = ("tiny_net", "tiny_vit", "conv_head")


class TinyNet(nn.Module):
    """Two layers and a head, in the form that timm's networks have."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, num_classes)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.fc(self.drop(torch.relu(self.norm(self.stem(x))).mean([2, 3])))  # type: ignore[no-any-return]


class ConvHead(TinyNet):
    """Its last layer is a convolution."""

    def get_classifier(self) -> nn.Module:
        """No linear layer."""
        return self.stem


class TinyVit(TinyNet):
    """Made for one size of images."""

    def __init__(self, num_classes: int, in_chans: int, img_size: tuple[int, int]) -> None:
        super().__init__(num_classes, in_chans)
        self.img_size = img_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of images of that size."""
        assert tuple(x.shape[2:]) == tuple(self.img_size)
        return super().forward(x)


def stub_timm() -> ModuleType:
    """A module that stands in for timm: `is_model` and `create_model` alone."""
    module = ModuleType("timm")

    def create_model(name: str, *, pretrained: bool, **given: Any) -> nn.Module:
        assert not pretrained
        return {"tiny_net": TinyNet, "tiny_vit": TinyVit, "conv_head": ConvHead}[name](**given)

    module.__version__ = "0.stub"  # type: ignore[attr-defined]
    module.is_model = lambda name: name in KNOWN  # type: ignore[attr-defined]
    module.create_model = create_model  # type: ignore[attr-defined]
    return module


def tiny() -> nn.Module:
    """A network of three classes of grey images, as a function of its owner's would return it."""
    return TinyNet(3, 1)
