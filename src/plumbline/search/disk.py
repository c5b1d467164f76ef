"""Messages for a disk that takes nothing more, and for paths that cannot be: neither is a bug."""

from __future__ import annotations

import errno
from pathlib import Path

from plumbline import exits

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def complaint(error: OSError, folder: Path) -> tuple[int, str] | None:
    """(exit status, message) where a study's folder could not be written to; None if the error is about something else."""
    if error.errno in FULL:
        return exits.BUG, f"plumbline: {folder}: the disk is full; make room, then the same command goes on"
    if error.errno in CLOSED:
        where = error.filename or folder
        return exits.MISTAKE, f"plumbline: {where}: cannot be written to ({error.strerror}); say another outputs=…"
    return None
