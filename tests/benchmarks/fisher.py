"""The Fisher engine against a loop over images: packaged probe, a head of five classes, the same
images, the same diagonal.

The loop runs one image at a time and takes the gradient of the weights by autograd, once a
direction. The values must agree within a relative 1e-4 before anything is timed; the aim is twice
the loop's speed.
"""

import torch
from torch import Tensor, nn

from lockforge.embed.fisher import diagonal_fisher, directions
from lockforge.embed.probe import load_probe
from lockforge.files import Files
from lockforge.randomness import torch_generator
from lockforge.recipe import EmbedRecipe
from tests.benchmarks.line import FOLDER, arguments, by_turns, write_line

IMAGES, CLASSES, BATCH = 128, 5, 64


def loop(network: nn.Module, head: nn.Linear, images: Tensor) -> Tensor:
    """The same diagonal, an image and a direction at a time, in float64 sums."""
    generator = torch_generator(0, "benchmark", "unused")
    weights = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for weight in weights:
        weight.requires_grad_(requires_grad=True)
    total = [
        torch.zeros(len(weight), dtype=torch.float64, device=weight.device) for weight in weights
    ]
    for image in images:
        logits = head(network.pooled(image[None]))  # type: ignore[operator]
        with torch.no_grad():
            chosen = directions(torch.softmax(logits, 1), generator)
        for direction in chosen:
            grads = torch.autograd.grad(
                (logits * direction).sum(), weights, retain_graph=True, allow_unused=True
            )
            for summed, gradient in zip(total, grads, strict=True):
                if gradient is not None:
                    summed.add_(gradient.double().square().flatten(1).mean(1))
    for weight in weights:
        weight.requires_grad_(requires_grad=False)
    return torch.cat(total).div(len(images)).float()


def main() -> None:
    """Compare, time, print the line."""
    given = arguments(__doc__, repeats=5)
    probe = load_probe(EmbedRecipe(), None, Files(FOLDER), given.device)
    generator = torch_generator(0, "benchmark", "fisher")
    images = torch.randint(256, (IMAGES, 3, 32, 32), generator=generator, dtype=torch.uint8).to(
        given.device
    )
    seen = probe.see(images)
    head = nn.Linear(probe.network.pooled(seen[:1]).shape[1], CLASSES).requires_grad_(
        requires_grad=False
    )  # type: ignore[operator]
    nn.init.normal_(head.weight, std=0.1, generator=generator)
    nn.init.zeros_(head.bias)
    head.to(given.device)

    def engine() -> Tensor:
        return diagonal_fisher(probe.network, head, torch.split(seen, BATCH), generator=generator)

    ours, plain = engine(), loop(probe.network, head, seen)
    difference = float(((ours - plain).abs() / plain.clamp_min(1e-6 * float(plain.max()))).max())
    if ours.shape != plain.shape or difference > 1e-4:
        raise SystemExit(f"the diagonals differ by {difference}: nothing is timed")
    seconds = by_turns(
        {"loop_s": lambda: loop(probe.network, head, seen), "engine_s": engine},
        given.repeats,
        given.device,
    )
    figures = {
        "images": IMAGES,
        "classes": CLASSES,
        "largest_relative_difference": difference,
        **seconds,
    }
    write_line("fisher", given, figures | {"speedup": seconds["loop_s"] / seconds["engine_s"]})


if __name__ == "__main__":
    main()
