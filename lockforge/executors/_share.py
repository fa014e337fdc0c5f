"""Files by their hash at a place that all machines see: a folder, a bucket, whatever fsspec knows
by its URL.

A machine fetches a file once; its bytes are held against its name before it is taken.
"""

import hashlib
import uuid
from collections.abc import Iterable
from typing import Any

from lockforge.errors import IntegrityError, ResourceError
from lockforge.files import Files, write_whole
from lockforge.records import FileRef


def push(url: str, files: Files, refs: Iterable[FileRef]) -> None:
    """Bring files to the shared place that are not there yet; one that is being written has another
    name.

    Raises: ResourceError: the place cannot be written to.
    """
    system, root = _open(url)
    for ref in refs:
        there = f"{root}/sha256-{ref.sha256}"
        try:
            if system.exists(there) and system.size(there) == ref.size:
                continue
            part = f"{root}/{uuid.uuid4().hex}.part"
            system.makedirs(root, exist_ok=True)
            system.pipe_file(part, files.get(ref))
            system.mv(part, there)
        except OSError as error:
            raise _refused(url, error) from error


def pull(url: str, files: Files, refs: Iterable[FileRef]) -> None:
    """Fetch files that this machine does not have.

    Raises: ResourceError: the place cannot be read. IntegrityError: a file there holds other bytes
        than its name says.
    """
    system, root = _open(url)
    for ref in refs:
        if files.has(ref):
            continue
        try:
            data = system.cat_file(f"{root}/sha256-{ref.sha256}")
        except OSError as error:
            raise _refused(url, error) from error
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise IntegrityError(
                f"the file sha256-{ref.sha256[:12]}... in {url} holds other bytes",
                hint="delete it there and start again",
            )
        write_whole(files.path(ref), data)


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the place in it.

    Raises: ResourceError: fsspec, or what it needs for this kind of place, is not installed.
    """
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ResourceError(
            f"--share {url} cannot be opened: {error}",
            hint="pip install 'lockforge[cluster]', and what fsspec needs for that kind of place",
        ) from error
    return system, str(root).rstrip("/")


def _refused(url: str, error: OSError) -> ResourceError:
    return ResourceError(
        f"--share {url} refuses: {error}", hint="give a place that all machines may read and write"
    )
