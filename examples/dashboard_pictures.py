"""Make the pictures of the guide to the dashboard from the runs that the demo leaves.

    make demo
    python -m examples.dashboard_pictures

Takes half a minute, and writes docs/images/dashboard-*.png. It needs Chromium and Playwright, like the tests
of the dashboard in a browser, whose parts it uses.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image

import mlrs
from tests.support.browser import Browser, Visitor, chromium, expect
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard

ROOT = Path(__file__).parents[1]
MOST_BYTES = 100_000
COLOURS = 256
"""So few are enough for a page, and make a third of the bytes."""
RUN = {"id": "demo/torch/advised"}
COMPARED = [("ids", f"demo/torch/{schedule}") for schedule in ("advised", "constant", "cosine", "step")]
POLLS = 6
"""How many times the page about the daemon reads how much it answers, every two seconds."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a page."""

    name: str
    path: str
    shows: str
    """A text that the page shows when it is complete."""
    width: int = 1280
    height: int = 860
    dark: bool = False


PICTURES = [
    Picture(name="runs", path="/runs", shows="8 runs", height=620),
    *(
        Picture(
            name=f"run{'-dark' if dark else ''}",
            path=f"/run?{urlencode({**RUN, 'smooth': 0.9})}",
            shows="Why it began as it did",
            dark=dark,
        )
        for dark in (False, True)
    ),
    Picture(
        name="run-narrow",
        path=f"/run?{urlencode(RUN)}",
        shows="newest: steps 1,498 to 1,499",
        width=400,
        height=800,
    ),
    *(
        Picture(
            name=f"compare{'-dark' if dark else ''}",
            path=f"/compare?{urlencode([*COMPARED, ('smooth', 0.95)])}",
            shows="Comparison of 4 runs",
            height=1075,
            dark=dark,
        )
        for dark in (False, True)
    ),
    Picture(name="task", path=f"/task?{urlencode({'name': 'demo/torch'})}", shows="The next run"),
]
HEALTH = Picture(name="health", path="/health", shows="answers a second", height=760)


def take(browser: Browser, dashboard: Dashboard, picture: Picture, folder: Path, *, polls: int = 0) -> None:
    """Open a page, and take its picture once it shows what it has to."""
    scheme = "dark" if picture.dark else "light"
    visitor = Visitor(browser, dashboard.url, width=picture.width, height=picture.height, color_scheme=scheme)
    page = visitor.open(picture.path)
    expect(page.locator(".page:not([aria-busy])")).to_contain_text(picture.shows)
    page.wait_for_load_state("load")
    page.wait_for_timeout(500 + 2000 * polls)  # for small curves, which come after their rows, and for polls
    path = folder / f"dashboard-{picture.name}.png"
    page.screenshot(path=path, animations="disabled")
    Image.open(path).quantize(COLOURS).save(path, optimize=True)
    visitor.check()
    size = path.stat().st_size
    assert size <= MOST_BYTES, f"{path} has {size:,} bytes"
    print(f"{path}: {size:,} bytes")


@contextmanager
def trained(address: str) -> Iterator[None]:
    """Observe steps of a run meanwhile, so that the daemon has something to do."""
    end = threading.Event()

    def observe() -> None:
        with mlrs.connect(address, timeout_s=20.0) as advisor:
            run, step = advisor.run("demo/load", policy="constant", memory=False), 0
            while not end.wait(0.002 + 0.002 * (step // 400 % 3)):
                run.next_lr(step, 1 / (1 + step))
                step += 1

    thread = threading.Thread(target=observe)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def main() -> None:
    """Take the pictures."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=ROOT / "demo-output" / "state")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlrs-") as folder:
        data_dir = Path(folder, "data")
        shutil.copytree(arguments.state, data_dir)
        with (
            Daemon(data_dir) as daemon,
            Dashboard("--connect", daemon.address) as dashboard,
            chromium() as browser,
        ):
            for picture in PICTURES:
                take(browser, dashboard, picture, arguments.out)
            with trained(daemon.address):
                take(browser, dashboard, HEALTH, arguments.out, polls=POLLS)


if __name__ == "__main__":
    main()
