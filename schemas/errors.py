"""The exceptions that Locum raises on purpose. The type says the remedy.

LocumError
├── SettingsError          change a flag, a YAML key, a manifest row          exit 2
│   ├── ManifestError      … what was asked to be read is not there or contradicts itself
│   └── ModelError         … the model cannot be built, or says impossible things
├── StoreError             the store is not what was asked for                exit 4
│   ├── SpecMismatchError  … make or name another store
│   └── CorruptStoreError  … stop; `locum verify` says what is wrong
├── CircuitOpenError       too much fails at once: mend the cause, run again  exit 5
└── RetryableError         the world was away for a moment: run again         exit 75

VideoError is not of this tree: it is the fate of one video, caught at the video's
edge and written to quarantine. It never ends a run.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_SETTINGS = 2
EXIT_UNFINISHED = 3
EXIT_STORE = 4
EXIT_CIRCUIT_OPEN = 5
EXIT_RETRY = 75
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class LocumError(Exception):
    """Root of everything raised on purpose; ``exit_code`` is what the command line returns for it."""

    exit_code = EXIT_UNEXPECTED


class SettingsError(LocumError):
    """A setting is wrong; the message holds the value and what would be right."""

    exit_code = EXIT_SETTINGS


class ManifestError(SettingsError):
    """The videos that were named cannot be found, or what is said of them contradicts itself."""


class ModelError(SettingsError):
    """A model cannot be built from its reference, or its output cannot be a teacher's.

    ``clip_index`` is the place of the clip that showed it, among those that the model was given; None where no
    single clip did.
    """

    def __init__(self, message: str, *, clip_index: int | None = None) -> None:
        super().__init__(message)
        self.clip_index = clip_index


class StoreError(LocumError):
    """A store on disk is not what was expected."""

    exit_code = EXIT_STORE


class SpecMismatchError(StoreError):
    """The store was made by another spec: make or name another."""


class CorruptStoreError(StoreError):
    """A file of the store is damaged or contradicts another one."""


class CircuitOpenError(LocumError):
    """Too large a share of videos failed for reasons that are not theirs; nothing more is attempted."""

    exit_code = EXIT_CIRCUIT_OPEN


class RetryableError(LocumError):
    """A passing fault: running the same command again continues."""

    exit_code = EXIT_RETRY


class VideoError(Exception):
    """One video could not be read. ``permanent`` tells damage from a passing fault of its surroundings.

    ``stage`` is one of ``open``, ``probe``, ``decode``.
    """

    def __init__(self, stage: str, message: str, *, permanent: bool, cause: str = "") -> None:
        super().__init__(message)
        self.stage = stage
        self.permanent = permanent
        self.cause = cause or "VideoError"

    def __reduce__(self) -> tuple[object, ...]:
        return (_revive_video_error, (self.stage, str(self), self.permanent, self.cause))


def _revive_video_error(stage: str, message: str, permanent: bool, cause: str) -> VideoError:
    return VideoError(stage, message, permanent=permanent, cause=cause)
