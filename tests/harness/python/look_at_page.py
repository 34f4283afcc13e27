"""Looks at an HTML page with headless Chromium, and prints what it saw as lines of JSON.

    look_at_page.py FILE DIRECTORY

Each line is about one width and one colour scheme: `messages` of the console and the log, `requests` other
than for the page itself, the `boxes` of the elements that matter, the `overflow` of the page beyond its
width in pixels, the `screenshot`, a file in the directory, and the number of `colours` on it and on each
picture: a blank one has one. Chromium is driven by the DevTools protocol
over pipes. A proxy that is not there keeps it from the network.
"""

import base64
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import zlib

BROWSER = "chromium-headless-shell"
WIDTHS = (1280, 420)
SCHEMES = ("light", "dark")
DEADLINE_S = 60
# Scale of the pictures whose colours are counted: enough for that, and few octets for Python.
SMALL = 0.125

# Each picture and table: what it is, its size in pixels, and what it has inside.
BOXES = """
(() => [...document.querySelectorAll('svg, table, h2')].map(element => {
    const box = element.getBoundingClientRect();
    const shapes = [...element.querySelectorAll('rect:not(.plot)')];
    const visible = shapes.filter(shape => {
        const {width, height} = shape.getBoundingClientRect();
        const fill = getComputedStyle(shape).fill;
        return width > 0 && height > 0 && fill !== 'none' && fill !== 'rgba(0, 0, 0, 0)';
    });
    return {
        element: element.localName,
        section: element.closest('section')?.querySelector('h2').textContent,
        x: box.x + scrollX,
        y: box.y + scrollY,
        width: box.width,
        height: box.height,
        shapes: shapes.length,
        visible: visible.length,
        rows: element.querySelectorAll('tbody tr').length,
    };
}))()
"""


class Browser:
    """A browser at the other end of two pipes, whose messages end with a zero byte."""

    def __init__(self, profile):
        browser_reads, self.commands = os.pipe()
        self.answers, browser_writes = os.pipe()
        # The browser has them as descriptors 3 and 4.
        shell = f"exec {BROWSER} \"$@\" 3<&{browser_reads} 4>&{browser_writes}"
        arguments = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--proxy-server=127.0.0.1:9",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            ["sh", "-c", shell, "sh", *arguments],
            pass_fds=(browser_reads, browser_writes),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        os.close(browser_reads)
        os.close(browser_writes)
        self.buffer = b""
        self.number = 0
        self.session = None
        self.events = []

    def receive(self):
        while b"\0" not in self.buffer:
            more = os.read(self.answers, 1 << 16)
            if not more:
                errors = self.process.stderr.read().decode(errors="replace")
                sys.exit(f"{BROWSER} has ended: {errors[-2000:]}")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            sys.exit(f"{method}: {answer['error']}")
        return answer["result"]

    def wait_for(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())


def colours(png):
    """The number of different colours of a PNG with 8 bits per channel (ISO/IEC 15948)."""
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", png, 16)
    channels = {2: 3, 6: 4}.get(kind)
    if depth != 8 or channels is None or interlaced:
        sys.exit(f"a PNG of {depth} bits and colour type {kind} is not read")
    data, at = b"", 8
    while at < len(png):
        length, name = struct.unpack_from(">I4s", png, at)
        if name == b"IDAT":
            data += png[at + 8:at + 8 + length]
        at += length + 12
    data, stride = zlib.decompress(data), width * channels
    above, found = bytes(stride), set()
    for row in range(height):
        start = row * (stride + 1)
        line, method = bytearray(data[start + 1:start + 1 + stride]), data[start]
        for at in range(stride):
            left, up, corner = (
                (line[at - channels], above[at], above[at - channels]) if at >= channels else (0, above[at], 0)
            )
            estimate = left + up - corner
            nearest = min((left, up, corner), key=lambda value: abs(estimate - value))
            line[at] = line[at] + (0, left, up, (left + up) // 2, nearest)[method] & 255
        above = line
        found.update(bytes(line[at:at + channels]) for at in range(0, stride, channels))
    return len(found)


def picture(browser, x, y, width, height, scale):
    clip = {"x": x, "y": y, "width": width, "height": height, "scale": scale}
    shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    return base64.b64decode(shot["data"])


def look(browser, url, width, scheme, screenshot):
    browser.session = None
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.call(f"{domain}.enable")
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
    )
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.events.clear()
    browser.call("Page.navigate", url=url)
    browser.wait_for("Page.loadEventFired")
    evaluate = lambda text: browser.call("Runtime.evaluate", expression=text, returnByValue=True)
    boxes = evaluate(BOXES)["result"]["value"]
    # A scroll bar takes a part of the width.
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    overflow = evaluate(overflow)["result"]["value"]
    height = evaluate("document.documentElement.scrollHeight")["result"]["value"]
    screenshot.write_bytes(picture(browser, 0, 0, width, height, 1))
    for box in boxes:
        if box["element"] == "svg":
            place = (box[side] for side in ("x", "y", "width", "height"))
            box["colours"] = colours(picture(browser, *place, SMALL))
    events = [event for event in browser.events if "method" in event]
    of = lambda method: [event["params"] for event in events if event["method"] == method]
    messages = [entry["entry"]["text"] for entry in of("Log.entryAdded")]
    messages += [str(call["args"]) for call in of("Runtime.consoleAPICalled")]
    messages += [str(error["exceptionDetails"]) for error in of("Runtime.exceptionThrown")]
    requested = [request["request"]["url"] for request in of("Network.requestWillBeSent")]
    seen = {
        "width": width,
        "scheme": scheme,
        "messages": messages,
        # The page itself is always there: without it, requests would not be seen.
        "requests": [other for other in requested if other != url] if url in requested else None,
        "boxes": boxes,
        "overflow": overflow,
        "screenshot": str(screenshot),
        "colours": colours(picture(browser, 0, 0, width, height, SMALL)),
    }
    browser.session = None
    browser.call("Target.closeTarget", targetId=target)
    return seen


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    url = pathlib.Path(arguments[0]).resolve().as_uri()
    directory = pathlib.Path(arguments[1])
    # The browser ends with its pipes.
    signal.alarm(DEADLINE_S)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            for width in WIDTHS:
                for scheme in SCHEMES:
                    screenshot = directory / f"{width}-{scheme}.png"
                    print(json.dumps(look(browser, url, width, scheme, screenshot)), flush=True)
        finally:
            os.killpg(browser.process.pid, signal.SIGKILL)
            browser.process.wait()


main(sys.argv[1:])
