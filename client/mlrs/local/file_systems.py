"""Whether folders are on a file system of this machine: sockets and locks do not work well on others."""

from __future__ import annotations

import os
import re
from pathlib import Path

NETWORK = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "panfs",
        "pvfs2",
        "smb3",
        "smbfs",
        "wekafs",
    }
)
"""The types of file systems that several machines may share. FUSE's are recognized by their names."""
NETWORK_FUSE = ("ceph", "curlftpfs", "gcsfuse", "gluster", "juicefs", "s3fs", "sshfs")
"""The beginnings of the names of shared file systems in user space, after `fuse.`."""
MOUNTS = "/proc/self/mountinfo"
"""The file with the mounted file systems, on Linux."""


def is_shared(path: Path) -> bool:
    """Return whether a path is on a file system that several machines may share.

    The nearest existing folder counts. Where the system does not say, as on macOS, the answer is no.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    kind = _kind_of(os.path.realpath(path))
    return kind in NETWORK or kind.removeprefix("fuse.").startswith(NETWORK_FUSE)


def _kind_of(path: str) -> str:
    """Return the type of the file system that a real path is on; empty: not known."""
    try:
        lines = Path(MOUNTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])  # a blank is \040 there
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount on the same point hides the earlier one
            best, kind = point, after.split()[0]
    return kind
