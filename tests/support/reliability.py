"""Where the long tests write what they measured; `performance.report.reliability` makes the table of it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "performance" / "results" / "reliability"
"""Where figures are until somebody publishes them; git ignores it, so no test changes a committed file."""


def save(name: str, command: str, began: float, ended: float, **figures: Any) -> None:
    """Save the figures of a test that passed; times are `time.monotonic()`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    saved = {
        "command": command,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "seconds": round(ended - began, 1),
        "figures": figures,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
