"""Who may put a group of files in place on an object store: one writer at a time, whole group or nothing.

A claim is a file that names its writer. It is made if absent, or taken over where it has not been renewed for long,
for its writer may have died; either way it is read back a moment later, and the writer that it names then has it. So it
also works where a server knows no conditional PUT, unless two writers are slower than that moment.
"""

from __future__ import annotations

import json
import time
import uuid

from pipeline.store.files import StoreFiles

OLD_SECONDS = 1800.0
"""Longer than putting one file takes, tried again and again: a claim is renewed before each."""
SETTLE_SECONDS = 1.0


class Claim:
    """A claim that this writer has; see `take`."""

    def __init__(self, files: StoreFiles, name: str) -> None:
        self._files, self._name, self._writer = files, name, uuid.uuid4().hex

    @classmethod
    def take(cls, files: StoreFiles, name: str) -> Claim | None:
        """The claim ``name`` in ``files``; None where another writer has it."""
        claim = cls(files, name)
        if not files.put_new(name, claim._text()):
            age = _age(files, name)
            if age is None or age < OLD_SECONDS:
                return None
            files.put_over(name, claim._text())
        time.sleep(SETTLE_SECONDS)
        return claim if claim.is_ours() else None

    def is_ours(self) -> bool:
        """Whether this writer still has it."""
        try:
            return bool(json.loads(self._files.read(self._name))["writer"] == self._writer)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def renew(self) -> bool:
        """Say that this writer is still at work; false where another has taken over."""
        if not self.is_ours():
            return False
        self._files.put_over(self._name, self._text())
        return True

    def give_back(self) -> None:
        """Let others have it."""
        if self.is_ours():
            self._files.delete(self._name)

    def _text(self) -> bytes:
        return json.dumps({"at": time.time(), "writer": self._writer}).encode()


def _age(files: StoreFiles, name: str) -> float | None:
    """Seconds since the claim was renewed; None where it has just been given back."""
    try:
        return time.time() - float(json.loads(files.read(name))["at"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return float("inf")
