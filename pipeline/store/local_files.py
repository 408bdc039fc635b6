"""A file on a local file system that appears whole or not at all, and stays after a power cut.

Written under a temporary name, synced, then linked (which fails where the name is taken) or renamed into
place; then the folder is synced. A process killed at any step leaves at most a temporary file.
"""

from __future__ import annotations

import errno
import os

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def put(tmp: str, final: str, data: bytes, *, replace: bool) -> bool:
    """Write ``data`` to ``final`` by way of ``tmp``. False where ``final`` exists and must stay."""
    make_folder(os.path.dirname(tmp))
    make_folder(os.path.dirname(final))
    try:
        with open(tmp, "xb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        if replace:
            os.replace(tmp, final)
            wrote = True
        else:
            wrote = _link_new(tmp, final)
    finally:
        try:
            os.unlink(tmp)
        except FileNotFoundError:
            pass
    sync_folder(os.path.dirname(final))
    return wrote


def make_folder(folder: str) -> None:
    """Make a folder and what is missing above it, each entry synced in the folder that holds it."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    make_folder(parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder is wanted", folder) from None
    sync_folder(parent)


def sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link_new(tmp: str, final: str) -> bool:
    try:
        os.link(tmp, final)
    except FileExistsError:
        # A network file system may have made the link and lost the answer: then the file has two names.
        return os.stat(tmp).st_nlink > 1
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
        if os.path.exists(final):
            return False
        os.replace(tmp, final)
    return True
