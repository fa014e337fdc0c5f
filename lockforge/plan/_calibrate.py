"""About ten seconds of measuring, once a machine, skeleton and image size: kept in the user's
cache folder and found again.

What is timed are the project's own functions on noise: `fit`, `fit_stack`, `logits_of`, the Fisher
information, the ONNX file. Slow networks are timed at small batches, and what a large one takes is
reckoned from there.
"""

import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from lockforge.data.batches import Pool
from lockforge.embed.fisher import diagonal_fisher
from lockforge.embed.probe import load_probe
from lockforge.engine.device import describe
from lockforge.engine.evaluate import logits_of
from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import RunContext, fit
from lockforge.engine.stack import Member, fit_stack, groups_of
from lockforge.errors import IntegrityError, ResourceError
from lockforge.executors.threads import threads_each
from lockforge.export.onnx import parity_of, to_onnx
from lockforge.files import Files, cache_folder, write_whole
from lockforge.models.networks import build, flops, state
from lockforge.plan.speeds import Groups, Speeds, Steps
from lockforge.prune.restyle import SETS, restyled
from lockforge.randomness import numpy_generator, torch_generator
from lockforge.recipe import FitRecipe, Recipe
from lockforge.records import AnyArchitecture, Architecture, canonical_json, sha256_text
from lockforge.search.meta_bench import load_meta_bench
from lockforge.search.surrogate import Surrogate
from lockforge.spaces.isomorphism import different_networks

FORMAT = 1  # raised when what is measured, or how, changes
_LITTLE, _SOME, _STACKED = 8, 64, 6  # examples of a small and of a large step; networks of a stack
_SECONDS = 0.15  # that one measurement should take
_SLOW = 0.4  # from so many on, a step is measured once
_REPEATS = 3
_IMAGES = 128
_RANDOM_CELLS = 4
_MOST_STEPS = 24


def speeds_of(
    architecture: AnyArchitecture,
    recipe: Recipe,
    files: Files,
    device: str,
    *,
    apart: bool = False,
    again: bool = False,
) -> Speeds:
    """How fast this machine is with a network: found in the cache folder, or measured and kept
    there, where that can be written to.

    Args: apart: what goes side by side does so in processes, so that it need not queue for Python.
        again: measure, whatever is there.
    """
    circumstances = _circumstances(architecture, recipe, device) | {"apart": str(apart)}
    path = cache_folder() / f"speeds-{sha256_text(canonical_json(circumstances))[:16]}.json"
    if not again:
        try:
            return Speeds.from_json(path.read_bytes())
        except (OSError, IntegrityError):
            pass  # nothing there, or of another version: it is measured again
    found = _Calibration(architecture, recipe, files, device, apart=apart).measured(circumstances)
    try:
        write_whole(path, found.to_json().encode())
    except (OSError, ResourceError):
        return (
            found  # a cache that cannot be written to is no fault: it is measured again next time
        )
    return found


def _circumstances(architecture: AnyArchitecture, recipe: Recipe, device: str) -> dict[str, str]:
    """What a measurement holds for."""
    described = describe()
    kept = {
        name: described[name] for name in ("machine", "cpu", "cores", "gpu", "torch", "lockforge")
    }
    how = [
        recipe.train.optimizer,
        recipe.train.crop,
        recipe.train.flip,
        recipe.prune.method,
        recipe.export.onnx,
    ]
    return {
        **kept,
        "device": device,
        "threads": str(torch.get_num_threads()),
        "network": sha256_text(canonical_json([architecture.digest, how])),
        "format": str(FORMAT),
    }


def grouping(architecture: AnyArchitecture, device: str) -> Groups:
    """How many of such networks `engine.stack` puts together, by examples a step and trainings at
    once.
    """
    network = build(architecture, torch_generator(0, "plan", "network"))

    @cache
    def groups(examples: int, count: int) -> tuple[int, ...]:
        images = torch.zeros(1, *architecture.shape).expand(examples, *architecture.shape)
        feed = TensorFeed(images, torch.zeros(examples, dtype=torch.int64))
        recipe = FitRecipe(steps=1, batch_size=examples)
        member = Member(network, feed, None, recipe, torch_generator(0, "plan", "groups"))
        return tuple(len(group) for group in groups_of([member] * count, device=device))

    return groups


def resident() -> int:
    """Bytes of memory that this process holds now; where the system does not say, the most that it
    held.
    """
    said = Path("/proc/self/statm")
    if said.is_file():
        return int(said.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _timed(run: Callable[[], object], workers: int = 1) -> float:
    """Seconds until all of some threads, of which each does it once, are done."""
    _wait()
    started = time.perf_counter()
    if workers == 1:
        run()
    else:
        with ThreadPoolExecutor(workers) as pool:
            for future in [pool.submit(run) for _ in range(workers)]:
                future.result()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    """Until a GPU that is in use has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _start_and_step(run: Callable[[int], object], workers: int = 1) -> tuple[float, float]:
    """Seconds of a run beside its steps, and of a step, from a run of one step and a longer one.

    Of each the shortest of three: what else the machine does can only make a run longer. Of a slow
    run one step is taken for all of it.
    """
    run(1)
    short = _timed(lambda: run(1), workers)
    if short > _SLOW:
        return 0.0, short
    short = min([short, *(_timed(lambda: run(1), workers) for _ in range(_REPEATS - 1))])
    more = max(2, min(_MOST_STEPS, round(_SECONDS / max(short, 1e-6))))
    long = min(_timed(lambda: run(1 + more), workers) for _ in range(_REPEATS))
    step = max(long - short, 0.1 * short) / more
    return max(short - step, 0.0), step


def _line(small: tuple[int, float], large: tuple[int, float]) -> tuple[float, float]:
    """What a step takes beside its examples, and an example, from steps of two sizes; neither is
    below zero.

    >>> _line((10, 3.0), (20, 4.0))
    (2.0, 0.1)
    """
    (few, short), (many, long) = small, large
    example = max(0.0, (long - short) / (many - few))
    return (short - few * example, example) if short >= few * example else (0.0, long / many)


class _Calibration:
    """One network on this machine, and everything else that a plan needs the seconds of."""

    def __init__(
        self,
        architecture: AnyArchitecture,
        recipe: Recipe,
        files: Files,
        device: str,
        *,
        apart: bool,
    ) -> None:
        self.architecture, self.recipe, self.files, self.device = (
            architecture,
            recipe,
            files,
            device,
        )
        shape = architecture.shape
        images = torch.randint(
            256,
            (_IMAGES, *shape),
            generator=torch_generator(0, "plan", "pictures"),
            dtype=torch.uint8,
        )
        labels = torch.arange(_IMAGES) % architecture.classes
        channels = shape[0]
        self.pool = Pool(
            images,
            labels,
            torch.full((channels,), 0.5),
            torch.full((channels,), 0.25),
            architecture.classes,
        ).to(device)
        self.workers = torch.get_num_threads() if device == "cpu" and not apart else 1

    def measured(self, circumstances: dict[str, str]) -> Speeds:
        """Everything."""
        begun = _timed(lambda: self.train(self.architecture, 1, _LITTLE))
        begun -= _timed(lambda: self.train(self.architecture, 1, _LITTLE))
        alone = self.steps(self.architecture)
        forward = self.forward()
        with threads_each(1):
            side = self.steps(self.architecture, self.workers)
            forward_side = self.forward(self.workers)
            stack = self.stack(side)
            head = self.head()
        probe, fisher = self.probe()
        thought, belief = self.thought()
        return Speeds(
            workers=self.workers,
            begun=max(0.0, begun),
            alone=alone,
            side=side,
            stack=stack,
            head=head,
            forward=forward,
            forward_side=forward_side,
            probe=probe,
            fisher=fisher,
            restyled=self.restyled(),
            random_cell=self.random_cell(alone),
            thought=thought,
            belief=belief,
            export=self.export(),
            saved=self.saved(),
            weights=4 * sum(one.numel() for one in self.network(self.architecture).parameters()),
            resident=resident(),
            most_resident=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            operations=flops(self.architecture),
            calibrated=circumstances,
        )

    def network(self, architecture: AnyArchitecture) -> torch.nn.Module:
        """A fresh one."""
        return build(architecture, torch_generator(0, "plan", "network"))

    def fit_recipe(self, steps: int, examples: int) -> FitRecipe:
        """The recipe's way of training, so many steps of such a size."""
        own = self.recipe.train.model_dump(include=set(FitRecipe.model_fields))
        return FitRecipe.model_validate(
            own | {"epochs": None, "steps": steps, "batch_size": examples, "select": "last"}
        )

    def train(self, architecture: AnyArchitecture, steps: int, examples: int) -> None:
        """One training by `fit`."""
        draw = torch_generator(0, "plan", "batches")
        fit(
            self.network(architecture),
            self.pool,
            self.fit_recipe(steps, examples),
            generator=draw,
            context=RunContext(device=self.device),
        )

    def steps(self, architecture: AnyArchitecture, workers: int = 1) -> Steps:
        """Trainings one by one: at a small batch, and at as large a one as there is time for."""
        start, small = _start_and_step(
            lambda steps: self.train(architecture, steps, _LITTLE), workers
        )
        if small > _SLOW:
            return Steps(start=start, step=0.0, example=small / _LITTLE)
        size = _SOME if small < _SECONDS / 4 else 2 * _LITTLE
        _, large = _start_and_step(lambda steps: self.train(architecture, steps, size), workers)
        step, example = _line((_LITTLE, small), (size, large))
        return Steps(start=start, step=step, example=example)

    def stack(self, side: Steps) -> Steps | None:
        """Trainings in stacks: of two networks and of some, at two sizes of batch; None where they
        are not stacked.

        Networks are stacked because that is no slower than one by one (`side`): a measurement that
        says otherwise met something else.
        """
        groups = grouping(self.architecture, self.device)
        if groups(_LITTLE, 2) != (2,):
            return None

        def timed(members: int, examples: int) -> tuple[float, float]:
            start, step = _start_and_step(
                lambda steps: self.train_stack(members, steps, examples), self.workers
            )
            return start, min(step, members * (side.step + examples * side.example))

        start, two = timed(2, _LITTLE)
        most = max(groups(_LITTLE, _STACKED))
        step, each = (
            _line((2, two), (most, timed(most, _LITTLE)[1])) if most > 2 else (0.0, two / 2)
        )
        example = each / _LITTLE
        if groups(2 * _LITTLE, 2) == (2,):
            _, of_two = _line((_LITTLE, two), (2 * _LITTLE, timed(2, 2 * _LITTLE)[1]))
            example = min(example, of_two / 2)
        return Steps(start=start / 2, step=step, member=each - _LITTLE * example, example=example)

    def train_stack(self, members: int, steps: int, examples: int) -> None:
        """One stack by `fit_stack`."""
        recipe = self.fit_recipe(steps, examples)
        draws = [torch_generator(0, "plan", "member", at) for at in range(members)]
        fit_stack(
            [
                Member(self.network(self.architecture), self.pool, None, recipe, draw)
                for draw in draws
            ],
            context=RunContext(device=self.device),
        )

    def head(self) -> Steps:
        """A linear head on features."""
        draw = torch_generator(0, "plan", "features")
        feed = TensorFeed(
            torch.randn(_IMAGES, 128, generator=draw).to(self.device), self.pool.labels
        )

        def train(steps: int, examples: int) -> None:
            head = torch.nn.Linear(128, self.architecture.classes)
            recipe = FitRecipe(
                steps=steps,
                batch_size=examples,
                optimizer="adam",
                learning_rate=0.01,
                select="last",
            )
            fit(
                head,
                feed,
                recipe,
                generator=torch_generator(0, "plan", "head"),
                context=RunContext(device=self.device),
            )

        with torch.random.fork_rng(
            devices=[]
        ):  # a layer's own first draws leave the global state as it was
            start, small = _start_and_step(lambda steps: train(steps, _LITTLE))
            _, large = _start_and_step(lambda steps: train(steps, _SOME))
        step, example = _line((_LITTLE, small), (_SOME, large))
        return Steps(start=start, step=step, example=example)

    def forward(self, workers: int = 1) -> float:
        """An image through the network, no gradients."""
        network = self.network(self.architecture).eval()
        some = self.pool.take(torch.arange(_LITTLE))
        logits_of(network, some, device=self.device)
        each = _timed(lambda: logits_of(network, some, device=self.device), workers) / _LITTLE
        if each * _IMAGES > 2 * _SECONDS:
            return each
        return _timed(lambda: logits_of(network, self.pool, device=self.device), workers) / _IMAGES

    def probe(self) -> tuple[float, float]:
        """An image through the packaged probe, and its Fisher information."""
        probe = load_probe(
            self.recipe.embed.model_copy(update={"probe": "packaged"}),
            None,
            self.files,
            self.device,
        )
        images = self.pool.images[:_SOME]
        features = probe.features(images)
        passed = _timed(lambda: probe.features(images)) / len(images)
        with torch.random.fork_rng(devices=[]):
            head = torch.nn.Linear(features.shape[1], self.architecture.classes).to(self.device)
        some = [probe.see(images[:_LITTLE])]
        draw = torch_generator(0, "plan", "fisher")
        diagonal_fisher(probe.network, head, some, generator=draw)
        return passed, _timed(
            lambda: diagonal_fisher(probe.network, head, [probe.see(images)], generator=draw)
        ) / len(images)

    def restyled(self) -> float:
        """An image made of the source's; 0 where the recipe makes none."""
        if self.recipe.prune.method != "ntp":
            return 0.0
        draw = torch_generator(0, "plan", "restyled")
        return (
            sum(_timed(partial(restyled, self.pool, draw, kinds=kinds)) for kinds in SETS)
            / len(SETS)
            / _IMAGES
        )

    def random_cell(self, typical: Steps) -> float:
        """A step of random cells, in steps of the typical one."""
        if not isinstance(self.architecture, Architecture):
            return 1.0
        cells = different_networks(self.architecture.space)
        drawn = numpy_generator(0, "plan", "cells").choice(len(cells), _RANDOM_CELLS, replace=False)
        wanted = typical.step + _LITTLE * typical.example
        if wanted > _SLOW:  # what is slow is slow by its operations
            each = [
                flops(self.architecture.model_copy(update={"cell": cells[int(at)]})) for at in drawn
            ]
            return float(np.mean(each)) / flops(self.architecture)

        def step(at: int) -> float:
            other = self.architecture.model_copy(update={"cell": cells[at]})
            return _start_and_step(lambda steps: self.train(other, steps, _LITTLE))[1]

        return float(np.mean([step(int(at)) for at in drawn])) / wanted

    def thought(self) -> tuple[float, float]:
        """What a search does beside training: the space and what is known of it in general; one
        round of reckoning.
        """
        if not isinstance(self.architecture, Architecture):
            return 0.0, 0.0
        space = self.architecture.space
        started = time.perf_counter()
        cells = different_networks(space)
        load_meta_bench(space).good_in_general(cells)
        surrogate = Surrogate(cells)
        ready = time.perf_counter() - started
        count = self.recipe.search.measurements
        generator = numpy_generator(0, "plan", "belief")
        measured = generator.choice(len(cells), min(count, len(cells)), replace=False)
        return ready, _timed(lambda: surrogate.fit(measured, generator.random(len(measured))))

    def export(self) -> float:
        """The ONNX file and its check; 0 where the recipe wants none."""
        if not self.recipe.export.onnx:
            return 0.0
        tensors = state(self.network(self.architecture))
        started = time.perf_counter()
        data = to_onnx(self.architecture, tensors, self.recipe.export)
        parity_of(self.architecture, tensors, data, self.recipe.export, 0)
        return time.perf_counter() - started

    def saved(self) -> int:
        """Bytes that one example leaves behind for the backward pass: two and four examples, and
        the difference.
        """
        network = self.network(self.architecture).to(self.device)

        def kept(examples: int) -> int:
            found: dict[int, int] = {}

            def note(tensor: torch.Tensor) -> torch.Tensor:
                found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                outputs = network(self.pool.pixels(torch.arange(examples)))
            del outputs
            return sum(found.values())

        return max(1, (kept(4) - kept(2)) // 2)
