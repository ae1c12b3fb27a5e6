"""Headless Chromium, driven through two pipes: no package and no port is needed."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "chrome", "google-chrome")
OPTIONS = "--headless --no-sandbox --disable-gpu --remote-debugging-pipe --no-first-run".split()


def browser():
    """Returns the path of Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page that is open in a browser."""

    def __init__(self, to_browser, from_browser):
        self.to_browser, self.from_browser = to_browser, from_browser
        self.numbers, self.said, self.session = itertools.count(1), [], None

    def send(self, method, **parameters):
        """Sends a command of the DevTools protocol, and returns its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to_browser.write(json.dumps(message).encode() + b"\0")
        self.to_browser.flush()
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.said.append(answer["params"])

    def _message(self):
        found = bytearray()
        while (byte := self.from_browser.read(1)) != b"\0":
            assert byte, "the browser ended"
            found += byte
        return found

    def evaluate(self, script):
        """Returns the value of a script."""
        found = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script, seconds=30):
        """Waits until a script's value is true, and returns it."""
        end = time.monotonic() + seconds
        while not (found := self.evaluate(script)):
            assert time.monotonic() < end, f"{script} is {found!r}; the page said {self.said}"
            time.sleep(0.05)
        return found

    def move_over(self, element):
        """Moves the mouse over the element that a script returns."""
        script = (
            f"const r = ({element}).getBoundingClientRect(); [r.x + r.width/2, r.y + r.height/2]"
        )
        x, y = self.evaluate(f"{{ ({element}).scrollIntoView({{block: 'center'}}); {script} }}")
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def opened(url, folder, language="en"):
    """Opens a page in a new browser, whose profile is in `folder`."""
    read_here, write_there = os.pipe()
    read_there, write_here = os.pipe()

    def pipes():  # the browser reads from 3 and writes to 4
        ends = os.dup(read_there), os.dup(write_there)
        for end, number in zip(ends, (3, 4), strict=True):
            os.dup2(end, number)

    command = [browser(), *OPTIONS, f"--accept-lang={language}", f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        [*command, "--window-size=1000,1600"],
        preexec_fn=pipes,
        close_fds=False,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_there), os.close(write_there)
    try:
        with os.fdopen(write_here, "wb") as out, os.fdopen(read_here, "rb") as back:
            page = Page(out, back)
            target = page.send("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.send("Target.attachToTarget", targetId=target, flatten=True)[
                "sessionId"
            ]
            for domain in ("Log", "Runtime", "Page"):
                page.send(f"{domain}.enable")
            page.send("Page.navigate", url=url)
            page.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
            yield page
    finally:
        process.kill()
        process.wait()
