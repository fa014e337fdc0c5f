"""The one door to timm: a network by its name, without weights from anywhere. Its own weights come
from a file that is given.
"""

from typing import Any

from torch import nn

from lockforge.errors import DataError, RecipeError, ResourceError
from lockforge.records import TIMM

INSTALL = "pip install 'lockforge[probes]'; timm needs a torchvision that fits the installed torch"


def _timm() -> Any:
    try:
        import timm
    except (
        ImportError,
        RuntimeError,
    ) as error:  # a torchvision that does not fit torch raises a RuntimeError
        told = (str(error).splitlines() or [""])[0]
        raise ResourceError(
            f"networks named {TIMM}NAME need timm, which cannot be imported: {told}", hint=INSTALL
        ) from error
    return timm


def create(name: str, classes: int, shape: tuple[int, int, int]) -> tuple[nn.Module, str]:
    """A timm network and the name of its last layer. Nothing is downloaded; weights are as timm
    draws them.

    Args: name: `timm:NAME`. shape: (c, h, w) of the images; networks that are made for one size
        are made for this one.
    Raises: RecipeError: timm has no such network. DataError: its last layer is not one linear
        layer. ResourceError: timm is not there.
    """
    timm = _timm()
    bare = name.removeprefix(TIMM)
    if not timm.is_model(bare):
        raise RecipeError(
            f"timm {timm.__version__} has no network {bare!r}",
            hint="`timm.list_models()` lists them",
        )
    given = {"pretrained": False, "num_classes": classes, "in_chans": shape[0]}
    try:
        made: Any = timm.create_model(bare, img_size=shape[1:], **given)
    except TypeError:  # only networks that cut images into patches ask for their size
        made = timm.create_model(bare, **given)
    last = made.get_classifier()
    found = [path for path, part in made.named_modules() if part is last]
    if not isinstance(last, nn.Linear) or len(found) != 1:
        raise DataError(
            f"the last layer of {name} is {type(last).__name__}, not one linear layer",
            hint="give another network",
        )
    return made, found[0]
