"""Pages in a real browser, where there is one: the documents, a run's page, a comparison.

The browser starts once for all of them.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import queue
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from docs_site import build

from ipd.report import compare, compare_page, page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
    # whatever is asked of another host fails at once
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1800,1000"),
)
WIDTHS = (375, 768, 1600)
RUN, COMPARISON = "pages/report.html", "pages/comparison.html"
HARNESS = Path(__file__).with_name("harness.html")


class _Handler(SimpleHTTPRequestHandler):
    """Serves files; what is posted goes into the server's queue."""

    def do_POST(self) -> None:
        self.server.told.put(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def looked_at(folder: Path, names: list[str], scratch: Path) -> dict[str, dict[str, Any]]:
    """What the browser finds on each page below `folder`; skips where there is no browser."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    text = HARNESS.read_text().replace("__WIDTHS__", json.dumps(WIDTHS))
    (folder / HARNESS.name).write_text(text.replace("__PAGES__", json.dumps(names)))
    told: queue.Queue[bytes] = queue.Queue()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=folder)) as server:
        server.told = told  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [browser, *FLAGS, f"--user-data-dir={scratch / 'profile'}", address + HARNESS.name]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                found: dict[str, dict[str, Any]] = json.loads(told.get(timeout=180))
            finally:
                process.terminate()
        server.shutdown()
    assert found.keys() == set(names), found
    for seen in found.values():
        seen["foreign"] = [name for name in seen["loads"] if not name.startswith((address, "data:", "blob:"))]
    return found


def test_pages_can_be_read_at_every_width(judged_run: Path, many_runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    if importlib.util.find_spec("material"):
        build(folder)
    (folder / RUN).parent.mkdir(parents=True)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    shutil.copy(page.write(judged_run), folder / RUN)
    compared = compare.load([many_runs], many_runs)
    shutil.copy(compare_page.write(compared, tmp_path / "out"), folder / COMPARISON)
    found = looked_at(folder, [*names, RUN, COMPARISON], tmp_path)
    wrong = []
    for name, seen in found.items():
        wrong += [f"{name}: missing picture {each}" for each in seen["missing"]]
        wrong += [f"{name}: loads {each}" for each in seen["foreign"]]
        for width, at in seen["widths"].items():
            if at["scroll"] > at["client"]:
                wrong.append(f"{name}, {width} px: is {at['scroll']} px wide")
            if at["table"] > 0:
                wrong.append(f"{name}, {width} px: the headline table does not fit")
            if at["narrowest"] < 300:
                wrong.append(f"{name}, {width} px: a chart is {at['narrowest']} px wide")
        wrong += [f"{name}, {where}: faint {each}" for where, all in seen["faint"].items() for each in all]
        wrong += [f"{name}, {WIDTHS[-1]} px: wider than its box: {each}" for each in seen["cut"]]
        levels = [0, *seen["headings"]]
        if levels.count(1) != 1 or any(below > above + 1 for above, below in pairwise(levels)):
            wrong.append(f"{name}: levels of headings {levels[1:]}")
        assert seen["texts"] > 10 and seen["background"][0] != seen["background"][1], name
    assert not wrong, "\n".join(wrong)
    assert all(at["charts"] >= 25 for at in found[RUN]["widths"].values())
    charts = "IQMs, three profiles, variants, volume, two of prompts"
    assert all(at["charts"] == 8 for at in found[COMPARISON]["widths"].values()), charts
    assert not names or found["index.html"]["pictures"], "nothing was looked for"
