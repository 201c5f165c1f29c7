"""Look installed dependencies up among known vulnerabilities, where a service that knows them is in reach.

A service that cannot be reached, or knows nothing, would look like one that found nothing. So it is first
asked about a version that is known to be vulnerable; only one that says so is believed about the others.

    python .ci/audit.py        exits with 1 if a dependency has a known vulnerability
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KNOWN_BAD = "urllib3==1.24.1"
"""A version with known vulnerabilities (CVE-2019-11324, for one)."""
SERVICES = ("pypi", "osv")
TIMEOUT_S = 600


def audited(service: str, *what: str) -> list[dict[str, Any]] | None:
    """Return what a service says of each dependency; `None` if it says nothing."""
    command = [sys.executable, "-m", "pip_audit", *what]
    command += ["--vulnerability-service", service, "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    return found


def main() -> int:
    """Audit with the first service that can be believed."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.txt"
        probe.write_text(KNOWN_BAD + "\n", encoding="utf-8")
        pinned = ("--requirement", str(probe), "--no-deps", "--disable-pip")
        answers = {name: audited(name, *pinned) or [] for name in SERVICES}
    believed = [name for name, found in answers.items() if any(one.get("vulns") for one in found)]
    if not believed:
        print("=" * 88)
        print("AUDIT SKIPPED: dependencies were NOT checked for known vulnerabilities. None of the services")
        print(f"({', '.join(SERVICES)}) can be reached, or they do not know {KNOWN_BAD} as vulnerable.")
        print("Run `make audit` where the network allows it before a release.")
        print("=" * 88)
        return 0
    dependencies = audited(believed[0], "--local", "--skip-editable")
    if dependencies is None:
        print(f"AUDIT SKIPPED: {believed[0]} answered a probe, and then no more")
        return 0
    for one in dependencies:
        if "skip_reason" in one:
            print(f"not audited: {one['name']}: {one['skip_reason']}")
    bad = [one for one in dependencies if one.get("vulns")]
    for one in bad:
        for vulnerability in one["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            print(f"VULNERABLE: {one['name']} {one['version']}: {vulnerability['id']}; fixed in {fixed}")
    print(f"audited {len(dependencies)} dependencies with {believed[0]}: {len(bad)} vulnerable")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
