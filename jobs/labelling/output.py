"""Where an export goes: a file or a folder, on a local disk or an object store. Each file appears whole or not at all.

Nothing is written where a file of the export is there already and may not be replaced. Other files of the folder are
left alone, also those of an earlier export of other videos. It does not know what the files mean.
"""

from __future__ import annotations

import os
import posixpath
import uuid
from collections import Counter
from collections.abc import Sequence

from pipeline.exports.document import OutFile
from pipeline.store import local_files
from pipeline.store.files import StoreFiles
from schemas.errors import SettingsError


def write_files(out: str, files: Sequence[OutFile], *, one_file: bool, overwrite: bool) -> str:
    """Write the files of an export to ``out``, which is the file itself where there is ``one_file``, else their folder.
    Where that is.

    Raises
    ------
    SettingsError
        If a file is there already and not to be overwritten, or ``out`` is of the other sort: nothing was written. Or
        if one cannot be written.
    """
    folder, paths = _checked(out, files, one_file, overwrite)
    for file, path in zip(files, paths, strict=True):
        if not _put(folder, path, file.render(), overwrite):
            raise SettingsError(f"{_url(folder, path)} was made by someone else meanwhile")
    return _url(folder, paths[0]) if one_file else folder.url


def check_files(out: str, files: Sequence[OutFile], *, one_file: bool, overwrite: bool) -> None:
    """Raises what `write_files` would before it writes anything."""
    _checked(out, files, one_file, overwrite)


def _checked(
    out: str, files: Sequence[OutFile], one_file: bool, overwrite: bool
) -> tuple[StoreFiles, list[str]]:
    """Where the files are to be, and that they may."""
    folder, paths = _places(out, files, one_file)
    _check_sort(folder, out, one_file)
    if twice := [path for path, number in Counter(paths).items() if number > 1]:
        raise SettingsError(f"two files of the export would be called {twice[0]}")
    if not overwrite and (there := _there(folder, paths)):
        raise SettingsError(
            f"{_url(folder, there[0])} is there already"
            + (f", and {len(there) - 1} more of {len(paths)} files" if len(there) > 1 else "")
            + ": --overwrite replaces it"
        )
    return folder, paths


def _places(out: str, files: Sequence[OutFile], one_file: bool) -> tuple[StoreFiles, list[str]]:
    if not one_file:
        return StoreFiles(out), [file.path for file in files]
    folder, _, name = (out if "://" in out else os.path.abspath(out)).rpartition("/")
    if not name or out.endswith("/"):
        raise SettingsError(f"-o {out}: this format is one file, and that is a folder")
    return StoreFiles(folder or "/"), [name] * len(files)


def _check_sort(folder: StoreFiles, out: str, one_file: bool) -> None:
    if one_file and os.path.isdir(out):
        raise SettingsError(f"-o {out}: this format is one file, and that is a folder")
    if folder.is_local and os.path.exists(folder.path or "/") and not os.path.isdir(folder.path or "/"):
        raise SettingsError(f"-o {out}: {folder.path} is a file, and a folder is wanted")


def _there(folder: StoreFiles, paths: Sequence[str]) -> list[str]:
    """Those of the files that exist, by one listing a folder."""
    listed = {
        sub: {posixpath.join(sub, name) for name in folder.list(sub)} for sub in map(posixpath.dirname, paths)
    }
    return [path for path in paths if path in listed[posixpath.dirname(path)]]


def _put(folder: StoreFiles, path: str, data: bytes, overwrite: bool) -> bool:
    if not folder.is_local:
        if overwrite:
            folder.put_over(path, data)
            return True
        return folder.put_new(path, data)
    final = folder.at(path)
    tmp = f"{posixpath.dirname(final)}/.{uuid.uuid4().hex}.part"
    try:
        return local_files.put(tmp, final, data, replace=overwrite)
    except OSError as e:
        raise SettingsError(f"cannot write {final}: {e.strerror or e}") from e


def _url(folder: StoreFiles, path: str) -> str:
    return f"{folder.url.rstrip('/')}/{path}"
