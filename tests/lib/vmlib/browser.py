# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real browser, Chromium, driven by chromedriver: W3C WebDriver over plain HTTP.

    with Browser(workdir) as browser:
        browser.open("http://127.0.0.1:9090/")
        browser.click("#button")
        wait_until(lambda: browser.js("return document.title") == "Done", "the title")
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .broker import wait_until
from .nspawn import die_with_parent

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # what WebDriver calls one
ESCAPE, ENTER, TAB, CONTROL = "\ue00c", "\ue007", "\ue004", "\ue009"  # keys, as WebDriver writes them
PATIENCE = 60  # seconds, for a browser on a busy machine


class WebDriverError(Exception):
    pass


class Browser:
    """One window; English, whatever this machine is set to."""

    def __init__(self, workdir: Path) -> None:
        self._log = (workdir / "chromedriver.log").open("w+b")
        # A socket of Chromium's is in there, whose path has 107 bytes at most: workdir may be too long for that.
        self._files = tempfile.TemporaryDirectory(prefix="vmf", ignore_cleanup_errors=True)
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=self._log, stderr=self._log, cwd=workdir,
                                        env={"PATH": "/usr/bin:/bin", "HOME": str(workdir), "LANG": "C.UTF-8", "TMPDIR": self._files.name},
                                        preexec_fn=die_with_parent, start_new_session=True)
        self._session = ""
        try:
            port = wait_until(self._port, "chromedriver listens", PATIENCE)
            self._url = f"http://127.0.0.1:{port}"
            self._session = "/session/" + self._call("POST", "/session", {"capabilities": {"alwaysMatch": {
                "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"},
                "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--lang=en-US",
                    "--force-color-profile=srgb", f"--user-data-dir={self._files.name}/profile"]}}}})["sessionId"]
        except BaseException:
            self.close()
            raise

    def _port(self) -> int:
        assert self._driver.poll() is None, self._said()
        found = re.search(r"started successfully on port (\d+)", self._said())
        return int(found[1]) if found else 0

    def _said(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self._url + self._session + path, method=method,
                                         data=None if method == "GET" else json.dumps(body or {}).encode(),
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE * 2) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise WebDriverError(f"{value['error']}: {value['message']}") from None

    # What a person does.

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def frame(self, selector: str) -> None:
        """What follows is about the document in this frame."""
        self._call("POST", "/frame", {"id": self._find(selector)})

    def top(self) -> None:
        """What follows is about the window's own document again."""
        self._call("POST", "/frame", {"id": None})

    def _find(self, selector: str) -> dict[str, str]:
        found: dict[str, str] = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return found

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self._find(selector)[ELEMENT]}/click")

    def fill(self, selector: str, text: str) -> None:
        element = self._find(selector)[ELEMENT]
        self._call("POST", f"/element/{element}/clear")
        self._call("POST", f"/element/{element}/value", {"text": text})

    def press(self, keys: str) -> None:
        """Keys for what has the focus, one after the other: ESCAPE, ENTER and TAB among them."""
        self._keys([(kind, key) for key in keys for kind in ("keyDown", "keyUp")])

    def paste(self) -> None:
        self._keys([("keyDown", CONTROL), ("keyDown", "v"), ("keyUp", "v"), ("keyUp", CONTROL)])

    def _keys(self, strokes: list[tuple[str, str]]) -> None:
        actions = [{"type": kind, "value": key} for kind, key in strokes]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    # What a person sees.

    def js(self, script: str, *args: Any) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def text(self, selector: str) -> str:
        """Of the first that the selector finds; "" where there is none."""
        return str(self.js("const found = document.querySelector(arguments[0]); return found ? found.innerText : ''", selector))

    def wait(self, selector: str, timeout: float = PATIENCE) -> None:
        wait_until(lambda: self.js("return document.querySelector(arguments[0]) !== null", selector), f"{selector} is there", timeout)

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        self._command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)

    def prefer(self, scheme: str) -> None:
        """"light" or "dark", as the desktop would say."""
        self._command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def _command(self, name: str, **params: Any) -> None:
        self._call("POST", "/goog/cdp/execute", {"cmd": name, "params": params})

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """What the console had to say since the last call: errors of scripts, what the policy of the page forbade. Cockpit of
        Debian 13 looks for a font that it does not have."""
        severe = [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
        return [message for message in severe if "/shell/assets/fonts/" not in message]

    def close(self) -> None:
        try:
            if self._session:
                self._call("DELETE", "")
        finally:
            try:
                os.killpg(self._driver.pid, signal.SIGKILL)  # with all that Chromium has started
            except ProcessLookupError:
                pass
            self._driver.wait(10)
            self._log.close()
            self._files.cleanup()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
