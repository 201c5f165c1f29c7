"""Whether a folder is on a file system that several machines share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlrs.local import file_systems
from mlrs.local.file_systems import is_shared

MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:30 / /home rw shared:2 - nfs4 server:/home rw
31 30 0:31 / /home/with\\040blank rw - tmpfs tmpfs rw
36 22 0:36 / /home/müller rw - nfs server:/m rw
32 22 0:32 / /mnt/far rw - fuse.sshfs me@far: rw
33 22 0:33 / /mnt/near rw - fuse.ntfs-3g /dev/sdb1 rw
34 22 0:34 / /scratch rw - lustre a@tcp:/scratch rw
35 34 0:35 / /scratch rw - xfs /dev/sdc rw
a line of another kind
"""


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("/home/me", True),
        ("/home/with blank/x", False),
        ("/homely", False),
        ("/home/müller/x", True),
        ("/mnt/far/x", True),
        ("/mnt/near/x", False),
        ("/scratch/x", False),
        ("/var", False),
    ],
)
def test_the_innermost_mount_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    shared: bool,  # noqa: FBT001 # pytest's
) -> None:
    """The file system is that of the innermost mount, and of the last one on the same point."""
    (tmp_path / "mounts").write_text(MOUNTS, encoding="utf-8")
    monkeypatch.setattr(file_systems, "MOUNTS", str(tmp_path / "mounts"))
    monkeypatch.setattr(Path, "exists", lambda _: True)
    assert is_shared(Path(path)) is shared


def test_unknown_mounts_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not list its mounts, folders count as local."""
    monkeypatch.setattr(file_systems, "MOUNTS", str(tmp_path / "none"))
    assert not is_shared(tmp_path)
