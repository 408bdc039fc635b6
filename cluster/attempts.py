"""Which job a command is: an id made from its work, and whether to send it or to follow what is there. Pure.

The same work has the same id, so a second submit of a command finds the first. A job cannot run twice in Ray; what
ended is sent again as the next attempt: ``locum-teach-0a1b2c3d4e5f``, ``...-2``, ``...-3``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from schemas.errors import SettingsError
from schemas.submission import ACTIVE, Job

_SHOWS = frozenset({"--json", "--quiet", "-q", "--profile"})
"""Flags that change what is printed, and nothing else."""
_HASH_LETTERS = 12
_NUMBERED = re.compile(r"(.+)-(\d+)")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAMED_IN_ERRORS = 5


@dataclass(frozen=True, slots=True)
class Attach:
    """Follow this job: it waits or runs."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send the command under this id: no attempt at it is under way."""

    job_id: str


def work_id(words: Sequence[str], *, config: bytes | None = None, folder: str = "") -> str:
    """The id of a command: by its words, what its file of settings holds, and what is sent along with it.

    ``--flag=value`` and ``--flag value`` are the same, and flags that change only what is printed do not count.
    ``folder`` is the name that Ray gives to the content of the working directory.
    """
    verb, *rest = words
    arguments: list[str] = []
    for i, word in enumerate(rest):
        if word == "--":
            arguments += rest[i:]
            break
        name, equals, value = word.partition("=")
        if word not in _SHOWS:
            arguments += [name, value] if equals and word.startswith("--") else [word]
    settings = None if config is None else sha256(config).hexdigest()
    work = json.dumps([verb, arguments, settings, folder])
    return f"locum-{verb}-{sha256(work.encode()).hexdigest()[:_HASH_LETTERS]}"


def checked_id(job_id: str) -> str:
    """An id that was given. It becomes part of addresses and of files' names.

    Raises
    ------
    SettingsError
        If it holds anything but letters, digits, ``.``, ``_`` and ``-``.
    """
    if not _ID.fullmatch(job_id):
        raise SettingsError(
            f"--submission-id {job_id!r}: 1 to 100 letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    return job_id


def decide(work: str, jobs: Iterable[tuple[str, str]]) -> Attach | Send:
    """What a submit of ``work`` does, given the ids and statuses of the cluster's jobs."""
    attempts = {number: status for job_id, status in jobs if (number := _attempt(work, job_id))}
    active = [number for number, status in attempts.items() if status in ACTIVE]
    if active:
        return Attach(_name(work, max(active)))
    return Send(_name(work, max(attempts, default=0) + 1))


def find(text: str, jobs: Sequence[Job]) -> Job:
    """The job whose id is ``text``, or begins with it; of several attempts at one work the last.

    Raises
    ------
    SettingsError
        If there is none, or they are of several works.
    """
    ids = {job.id: job for job in jobs}
    if text in ids:
        return ids[text]
    found = {job_id: _work_and_number(job_id, ids) for job_id in ids if job_id.startswith(text)}
    if not found:
        there = _some(ids)
        raise SettingsError(f"no job of Locum's begins with {text!r}; there are {there or 'none'}")
    if len({work for work, _ in found.values()}) > 1:
        raise SettingsError(f"several jobs begin with {text!r}: {_some(found)}")
    return ids[max(found, key=lambda job_id: found[job_id][1])]


def _name(work: str, number: int) -> str:
    return work if number == 1 else f"{work}-{number}"


def _attempt(work: str, job_id: str) -> int | None:
    """Which attempt at ``work`` a job is, counted from 1; None where it is none."""
    if job_id == work:
        return 1
    match = _NUMBERED.fullmatch(job_id)
    if match is None or match[1] != work or match[2] != str(int(match[2])) or int(match[2]) < 2:
        return None
    return int(match[2])


def _work_and_number(job_id: str, ids: Iterable[str]) -> tuple[str, int]:
    match = _NUMBERED.fullmatch(job_id)
    if match is not None and match[1] in ids and (number := _attempt(match[1], job_id)):
        return match[1], number
    return job_id, 1


def _some(ids: Iterable[str]) -> str:
    names = sorted(ids)
    more = f" and {len(names) - _NAMED_IN_ERRORS} more" if len(names) > _NAMED_IN_ERRORS else ""
    return ", ".join(names[:_NAMED_IN_ERRORS]) + more
