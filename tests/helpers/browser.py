"""Debian's Chromium without a display, driven by its DevTools protocol over two pipes.

The protocol needs no socket and no package: messages are JSON ended by a zero byte, written to file
descriptor 3 of the browser and read from 4 (chromium --remote-debugging-pipe).
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time

import pytest

#: Seconds that an answer may take on a busy machine.
_PATIENCE = 120

#: Gives the browser its pipes as descriptors 3 and 4, whatever their numbers here, even 4 and 3.
_LAUNCH = (
    "import fcntl, os, sys; "
    "r, w = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]); "
    "os.dup2(r, 3); os.dup2(w, 4); os.close(r); os.close(w); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium():
    """The browser's path, or a skip that says what is missing."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium fonts-dejavu")
    return path


class Browser:
    """One page of one browser, and everything it has complained about or asked for."""

    def __init__(self, profile):
        self.problems, self.requests, self._buffer, self._id = [], [], b"", 0
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable,
                *("-c", _LAUNCH, str(to_browser), str(from_browser), find_chromium()),
                *_FLAGS,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        """End the browser."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(_PATIENCE)
        os.close(self._write)
        os.close(self._read)

    def call(self, method, **params):
        """The result of a command of the protocol."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path, *, width, height=900, dark=False, media="screen"):
        """Load a page offline in a window of some width, in CSS pixels."""
        self.problems.clear()
        self.requests.clear()
        self.call("Network.setCacheDisabled", cacheDisabled=True)
        self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.emulate(dark=dark, media=media)
        self._loaded = False
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + _PATIENCE
        while not self._loaded:
            assert time.monotonic() < end, "the page did not load"
            self._receive()
        self.run("document.fonts.ready.then(() => true)")

    def emulate(self, *, dark=False, media="screen"):
        """Another medium for the page that is open."""
        scheme = "dark" if dark else "light"
        self.call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def run(self, script):
        """The value of a JavaScript expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path, *, whole=True):
        """A picture of the page, as a PNG file."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def print_to_pdf(self):
        """The page on A4 paper, as PDF."""
        self.emulate(media="print")
        printed = self.call(
            "Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False
        )
        return base64.b64decode(printed["data"])

    def _receive(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], _PATIENCE)
            assert ready, "chromium does not answer"
            piece = os.read(self._read, 1 << 20)
            assert piece, f"chromium ended with {self._process.wait(_PATIENCE)}"
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event, params):
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif (
            event in ("Runtime.exceptionThrown", "Network.loadingFailed")
            or (event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"))
            or (event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"))
        ):
            self.problems.append((event, params))
