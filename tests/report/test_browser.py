"""The page in a real browser, where there is one: nothing is wider than the window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ipd.report import page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-sync",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"),
    *("--virtual-time-budget=5000", "--window-size=1800,900", "--dump-dom"),
)
HARNESS = """<body><script>
const found = {}, widths = [375, 768, 1600];
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "800px"; frame.style.border = "0";
  frame.onload = () => {
    const page = frame.contentDocument, outer = page.documentElement;
    const sizes = [...page.querySelectorAll(".chart")].map(chart => chart.getBoundingClientRect().width);
    const shown = sizes.filter(size => size > 0), table = page.querySelector(".first .scroll");
    found[width] = {scroll: outer.scrollWidth, client: outer.clientWidth, charts: shown.length,
      narrowest: Math.min(...shown), table: table.scrollWidth - table.clientWidth};
    if (Object.keys(found).length === widths.length)
      document.body.textContent = "RESULT" + JSON.stringify(found) + "END";
  };
  frame.src = "PAGE"; document.body.append(frame);
}
</script></body>"""


def measured(page: Path, scratch: Path) -> dict[str, dict[str, float]]:
    """What the browser finds at each width; skips where there is no browser."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    harness = scratch / "harness.html"
    harness.write_text(HARNESS.replace("PAGE", page.as_uri()))
    command = [browser, *FLAGS, f"--user-data-dir={scratch / 'profile'}", harness.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    result = re.search(r"RESULT(.*)END", dom)
    assert result, dom[-500:]
    found: dict[str, dict[str, float]] = json.loads(result[1])
    return found


def test_page_fits_phone_tablet_and_desk(synthetic_run: Path, tmp_path: Path) -> None:
    for width, seen in measured(page.write(synthetic_run), tmp_path).items():
        assert seen["scroll"] <= seen["client"], f"{width} px: the page is {seen['scroll']} px wide"
        assert seen["table"] <= 0, f"{width} px: the headline table does not fit"
        assert seen["narrowest"] >= 300, f"{width} px: a chart is {seen['narrowest']} px wide"
        assert seen["charts"] >= 25
