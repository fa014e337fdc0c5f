"""Where independent pieces of work are done: in threads of this process, in other processes, on a
Ray cluster.

    here       the default: processes for many pieces on a CPU, threads for anything else
    threads    as many pieces at once as torch has threads, each on one of them
    processes  worker processes on this machine, which are told what to do in lines of JSON
    ray        a Ray cluster, one machine or many (extra `cluster`)

Which one is used decides nothing about the outcome. Whoever asks names it with `--executor`.
"""

from typing import Literal

from lockforge.errors import RecipeError
from lockforge.jobs import Executor

Kind = Literal["here", "threads", "processes", "ray"]

__all__ = ["Kind", "make_executor"]


def make_executor(
    kind: Kind = "here",
    *,
    workers: int | None = None,
    address: str | None = None,
    gpus: float = 0.0,
    share: str | None = None,
) -> Executor:
    """An executor by its name.

    Args: workers: pieces at once; None is one a thread (on this machine), or what the cluster has
        (ray). address: of a running cluster. gpus: GPUs for each piece on a cluster, a fraction
        where several share one. share: where files travel (an fsspec URL), when the workers do not
        see this machine's runs folder.
    Raises: RecipeError: options that this executor does not have; all at once. ResourceError: the
        extra is not installed.
    """
    given = {"--address": address, "--gpus": gpus, "--share": share}
    faults = [
        f"{name} {value}: only --executor ray has it"
        for name, value in given.items()
        if value and kind != "ray"
    ]
    faults += (
        [f"--workers {workers}: at least one is needed"]
        if workers is not None and workers < 1
        else []
    )
    faults += [f"--gpus {gpus}: a share of GPUs is 0 or more"] if gpus < 0 else []
    if faults:
        raise RecipeError(
            f"--executor {kind} cannot be had with these options",
            faults=faults,
            hint="docs/scale.md tells which has which",
        )
    if kind == "here":
        from lockforge.executors._here import Here

        return Here(workers)
    if kind == "threads":
        from lockforge.executors.threads import Threads

        return Threads(workers)
    if kind == "processes":
        from lockforge.executors._processes import Processes

        return Processes(workers)
    from lockforge.executors._ray import Ray

    return Ray(address, workers=workers, gpus=gpus, share=share)
