"""A headless Chromium, steered through a pipe: DevTools protocol, a JSON object and a NUL each way.

chromedevtools.github.io/devtools-protocol; file descriptors 3 and 4 as of `--remote-debugging-pipe`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page in one browser."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers = os.fdopen(to, "wb"), os.fdopen(answers, "rb")
        self._session: str | None = None
        self._number = 0
        self._early: list[dict[str, Any]] = []  # events that came while an answer was waited for
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._read()).get("id") != self._number:
            self._early.append(answer)
        assert "error" not in answer, answer
        return answer["result"]  # type: ignore[no-any-return]

    def open(self, path: Path) -> None:
        """Open a file as a double click would, and wait until it is loaded."""
        self._early.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not self.events("Page.loadEventFired"):
            self._early.append(self._read())

    def events(self, method: str) -> list[dict[str, Any]]:
        """List what has been reported since the page was opened."""
        return [event["params"] for event in self._early if event.get("method") == method]

    def run(self, script: str) -> Any:
        """Evaluate an expression of JavaScript, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Press a key, named as in KeyboardEvent.key, with its Windows code."""
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path, width: int, height: int, scheme: str = "light") -> None:
        """Save what a window of this size shows, as PNG."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has gone"
            message += byte
        return json.loads(message)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Hang up, at which the browser ends."""
        self._to.close()
        self._answers.close()


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own."""
    assert CHROMIUM is not None
    its_in, to = os.pipe()
    answers, its_out = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (its_in, its_out)]  # clear of the 3 and 4 they are to be
    os.close(its_in)
    os.close(its_out)
    flags = ["--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--disable-gpu", "--no-first-run"]
    flags += ["--disable-dev-shm-usage", "--hide-scrollbars"] + (["--no-sandbox"] if os.getuid() == 0 else [])
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "browser", CHROMIUM, *flags],
        pass_fds=high,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in high:
        os.close(end)
    try:
        browser = Browser(to, answers)
        try:
            yield browser
        finally:
            browser.close()
            process.wait(20)
    finally:
        process.kill()
        process.wait()
