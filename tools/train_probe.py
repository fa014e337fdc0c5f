"""Train the packaged probe: `python -m tools.train_probe --out FILE`.

Run it from the root of the repository. It reads no data: the images are drawn by code
(drawings.py). The same seed, machine, versions and thread count give the same file.
"""

import argparse
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from lockforge.data.batches import Pool
from lockforge.embed.probe import ProbeNetwork
from lockforge.engine.fit import Fitted, fit
from lockforge.files import write_whole
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe
from tools.drawings import CLASSES, draw_images

SEED = 0
TRAIN_IMAGES = 30720
VAL_IMAGES = 2048
RECIPE = FitRecipe(
    epochs=8,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=5e-4,
    warmup=0.05,
    label_smoothing=0.05,
    crop=3,
    flip=False,
    select="last",
)


def drawn_pool(count: int, seed: int, part: str) -> Pool:
    """Drawn images as a pool, normalised by the probe's fixed constants."""
    images, labels = draw_images(count, seed, part)
    return Pool(
        images=images,
        labels=labels,
        mean=torch.full((3,), 0.5),
        std=torch.full((3,), 0.25),
        classes=CLASSES,
    )


def train_probe(
    seed: int = SEED,
    train: int = TRAIN_IMAGES,
    val: int = VAL_IMAGES,
    recipe: FitRecipe = RECIPE,
) -> tuple[ProbeNetwork, Fitted]:
    """Train the probe on drawn images and measure it on fresh drawings of the same classes.

    Returns: the network in eval mode, and how training went (`val_accuracy` over all drawn
        classes).
    """
    network = ProbeNetwork(CLASSES, torch_generator(seed, "probe", "init"))
    generator = torch_generator(seed, "probe", "fit")
    fitted = fit(
        network,
        drawn_pool(train, seed, "train"),
        recipe,
        generator=generator,
        val=drawn_pool(val, seed, "val"),
    )
    return network.eval(), fitted


def packed(network: ProbeNetwork) -> dict[str, Tensor]:
    """The tensors that ship: all but the head's; convolutions in half precision.

    Their rounding is far below the jitter of the images.
    """
    kept = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("head.")
    }
    return {
        name: (tensor.half() if tensor.ndim == 4 else tensor).contiguous()
        for name, tensor in kept.items()
    }


def main() -> None:
    """Train and write the file; print its hash and its score."""
    from safetensors.torch import save

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the safetensors file goes")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network, fitted = train_probe(arguments.seed)
    data = save(packed(network))
    write_whole(arguments.out, data)
    print(  # noqa: T201
        f"{hashlib.sha256(data).hexdigest()}  {len(data)} bytes  accuracy over {CLASSES} drawn "
        f"classes {fitted.val_accuracy:.3f}"
    )


if __name__ == "__main__":
    main()
