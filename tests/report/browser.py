"""A headless Chromium as a person's eyes: opens a page at a width and in a colour scheme, and says
what went wrong there.

Spoken to in the DevTools protocol over a pipe: JSON messages, each ended by a zero byte, to
descriptor 3 of the browser and from descriptor 4 (`--remote-debugging-pipe`). No port is opened and
nothing has to be installed but the browser.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE = 60.0  # seconds for one answer; a cold start on a busy machine takes ten
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Where a Chromium is, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser, one page at a time; `faults` holds what console and network said since `open`
    was called.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self.rest = b""
        self.last_id = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        """Start it."""
        self.profile = tempfile.mkdtemp(prefix="lockforge-browser-")
        to_browser, self.to = _far_pipe()
        self.came, from_browser = _far_pipe()
        flags = [
            "--headless",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--disable-background-networking",
            f"--user-data-dir={self.profile}",
        ]
        if os.geteuid() == 0:
            flags.append(
                "--no-sandbox"
            )  # it refuses to run as root otherwise; the pages are our own
        said = str(Path(self.profile) / "said")
        self.pid = os.posix_spawn(
            self.program,
            [self.program, *flags],
            dict(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, to_browser, 3),
                (os.POSIX_SPAWN_DUP2, from_browser, 4),
                (os.POSIX_SPAWN_OPEN, 1, said, os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setpgroup=0,
        )
        os.close(to_browser)
        os.close(from_browser)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it and everything it started."""
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.to)
        os.close(self.came)
        for _ in range(20):  # its children die a moment later and may still write
            shutil.rmtree(self.profile, ignore_errors=True)
            if not Path(self.profile).exists():
                return
            time.sleep(0.1)

    def open(self, page: Path, *, width: int, scheme: str, height: int = 900) -> None:
        """Show a page; nothing else is loaded before this one is whole."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.events.clear()
        self.ask("Page.navigate", url=page.resolve().as_uri())
        deadline = time.monotonic() + PATIENCE
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read(deadline)

    def look(self, expression: str) -> Any:
        """What a JavaScript expression is worth on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    @property
    def faults(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and whatever the page asked the network
        for.
        """
        found = []
        for event in self.events:
            what = event["params"]
            match event["method"]:
                case "Runtime.consoleAPICalled" if what["type"] in {"error", "warning", "assert"}:
                    found.append(f"console: {what['args']}")
                case "Runtime.exceptionThrown":
                    found.append(f"exception: {what['exceptionDetails']}")
                case "Log.entryAdded" if what["entry"]["level"] in {"error", "warning"}:
                    found.append(f"log: {what['entry']['text']}")
                case "Network.requestWillBeSent" if not what["request"]["url"].startswith(
                    ("file:", "data:")
                ):
                    found.append(f"network: {what['request']['url']}")
        return found

    def image(self, file: Path) -> None:
        """The whole page as PNG."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def ask(self, method: str, **params: Any) -> Any:
        """One command and its answer; events that come meanwhile are kept."""
        self.last_id += 1
        wanted = self.last_id
        session = {"sessionId": self.session} if hasattr(self, "session") else {}
        _write(
            self.to,
            json.dumps({"id": wanted, "method": method, "params": params, **session}).encode()
            + b"\0",
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._read(deadline)
            if message.get("id") == wanted:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def _read(self, deadline: float) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self.rest:
            if not select.select([self.came], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise TimeoutError(f"no answer from {self.program} within {PATIENCE:.0f} s")
            piece = os.read(self.came, 1 << 16)
            if not piece:
                raise RuntimeError(
                    f"{self.program} ended: {(Path(self.profile) / 'said').read_text()[-2000:]}"
                )
            self.rest += piece
        text, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


def _far_pipe() -> tuple[int, int]:
    """A pipe whose ends are numbered 10 or more, so that neither is in the way of descriptors 3 and
    4.
    """
    ends = os.pipe()
    far = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return far[0], far[1]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
