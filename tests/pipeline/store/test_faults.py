"""Faults of an object store: what passes is waited out, what is ours is known again, the rest says its remedy."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from s3fs.errors import translate_boto_error

from pipeline.faults import is_taken
from pipeline.store.data_files import data_name, read_data, read_footer, read_group, read_groups
from pipeline.store.files import StoreFiles
from schemas.errors import CorruptStoreError, RetryableError, SettingsError
from tests.http_server import answering
from tests.pipeline.store.stores import finish, new_store


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.retry._FIRST_PAUSE_SECONDS", 0.001)


def client_error(code: str, status: int, message: str = "…") -> OSError:
    """What s3fs raises where a server answers so."""
    body: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    try:
        raise translate_boto_error(ClientError(body, "PutObject"))
    except OSError as e:
        return e


class Flaky:
    """``pipe_file`` of a server that fails some times; each fault may come before or after the object is stored."""

    def __init__(self, files: StoreFiles, faults: list[tuple[Exception, bool]]) -> None:
        self._pipe, self._faults, self.calls = files.fs.pipe_file, faults, 0

    def __call__(self, path: str, data: bytes, **options: Any) -> None:
        self.calls += 1
        if not self._faults:
            self._pipe(path, data, **options)
            return
        fault, is_stored = self._faults.pop(0)
        if is_stored:
            self._pipe(path, data, **options)
        raise fault


def flaky(monkeypatch: pytest.MonkeyPatch, files: StoreFiles, *faults: tuple[Exception, bool]) -> Flaky:
    server = Flaky(files, list(faults))
    monkeypatch.setattr(files.fs, "pipe_file", server)
    return server


PASSING = [
    client_error("SlowDown", 503),
    client_error("ServiceUnavailable", 503),
    client_error("InternalError", 500),
    client_error("ConditionalRequestConflict", 409),
    client_error("OperationAborted", 409),
    client_error("RequestTimeout", 400),
    EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    ConnectionResetError(errno.ECONNRESET, "reset by peer at 412"),
]


@pytest.mark.s3
def test_a_passing_fault_is_waited_out(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the object was stored and only the answer was lost: the file is ours, and no error."""
    files = StoreFiles(s3_bucket)
    for number, fault in enumerate(PASSING):
        for is_stored in (False, True):
            with monkeypatch.context() as patch:
                name = f"data/g{number}-000412-{is_stored}"
                server = flaky(patch, files, (fault, is_stored))
                assert files.put_new(name, b"mine " * 50_000), (fault, is_stored)
                assert server.calls == 2
                assert files.read(name) == b"mine " * 50_000
                assert not files.put_new(name, b"other" * 50_000), (fault, is_stored)


@pytest.mark.s3
def test_a_fault_that_stays_says_run_again(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = StoreFiles(s3_bucket)
    server = flaky(monkeypatch, files, *[(client_error("SlowDown", 503), False)] * 10)
    with pytest.raises(RetryableError, match="run again"):
        files.put_new("a", b"x")
    assert server.calls == 4 and not files.exists("a")


@pytest.mark.s3
def test_what_waiting_cannot_mend_is_not_waited_for(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = StoreFiles(s3_bucket)
    denied = [client_error("AccessDenied", 403), client_error("ExpiredToken", 400), NoCredentialsError()]
    for fault in [*denied, client_error("NoSuchBucket", 404)]:
        with monkeypatch.context() as patch:
            server = flaky(patch, files, (fault, False), (fault, False))
            with pytest.raises(SettingsError):
                files.put_new("a", b"x")
            assert server.calls == 1, fault


@pytest.mark.s3
def test_a_server_without_conditional_put_gets_a_plain_one(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StoreFiles(s3_bucket)
    pipe = files.fs.pipe_file

    def plain(path: str, data: bytes, mode: str = "overwrite", **options: Any) -> None:
        if mode == "create":
            raise client_error("NotImplemented", 501)
        pipe(path, data, mode=mode, **options)

    monkeypatch.setattr(files.fs, "pipe_file", plain)
    assert files.put_new("a", b"x") and not files.put_new("a", b"y")
    assert files.read("a") == b"x"


@pytest.mark.s3
def test_what_s3fs_raises_where_the_name_is_taken(s3_bucket: str) -> None:
    """The premise of all this: a conditional PUT is refused, and the refusal can be told from other errors."""
    files = StoreFiles(s3_bucket)
    files.fs.pipe_file(files.at("a"), b"x", mode="create")
    with pytest.raises(OSError) as caught:
        files.fs.pipe_file(files.at("a"), b"y", mode="create")
    assert is_taken(caught.value)
    assert files.read("a") == b"x"


@pytest.mark.parametrize(
    ("status", "error", "message", "asked"),
    [
        (403, SettingsError, "access is denied", 1),
        (400, SettingsError, "the server refuses it", 1),
        (404, FileNotFoundError, None, 1),
        (503, RetryableError, "run again", 4),
        (429, RetryableError, "run again", 4),
    ],
)
def test_what_an_http_server_answers_says_the_remedy(
    status: int, error: type[Exception], message: str | None, asked: int
) -> None:
    with answering(status) as (url, requests), pytest.raises(error, match=message):
        StoreFiles(url).read("student.json")
    assert requests == ["GET /student.json"] * asked


def test_digits_in_a_message_are_not_a_status() -> None:
    assert not is_taken(client_error("InternalError", 500, "cannot store g0001-000412: PreconditionFailed"))
    assert is_taken(client_error("PreconditionFailed", 412)) and is_taken(FileExistsError("…"))


class Breaking:
    """``open`` of a server whose ranged reads fail some times."""

    def __init__(self, files: StoreFiles) -> None:
        self._open, self.calls = files.open, 0
        self.faults: list[Exception] = []

    def __call__(self, rel: str) -> Any:
        file = self._open(rel)
        plain = file.read

        def read(length: int = -1) -> bytes:
            self.calls += 1
            if self.faults:
                raise self.faults.pop(0)
            return bytes(plain(length))

        file.read = read
        return file


@pytest.mark.s3
@pytest.mark.parametrize(
    "fault", [*PASSING[:2], TimeoutError("read timed out"), ConnectionResetError("reset")]
)
def test_a_read_in_part_that_fails_in_passing_is_tried_again(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    store = new_store(s3_bucket, 2)
    (key,) = finish(store)
    server = Breaking(store.files)
    monkeypatch.setattr(store.files, "open", server)
    server.faults = [fault, fault]
    found = read_group(store.files, key, 0, ["video_id"])
    assert found is not None and found[0].num_rows == 4
    assert not server.faults and server.calls > 2
    for read in (
        lambda: read_group(store.files, key, 0, ["video_id"]),
        lambda: read_groups(store.files, key, ["video_id"]),
        lambda: read_data(store.files, key, ["video_id"]),
        lambda: read_footer(store.files, key),
    ):
        server.faults = [fault] * 100
        with pytest.raises(RetryableError, match="run again"):
            read()


@pytest.mark.s3
def test_a_torn_file_is_damage_and_not_tried_again(s3_bucket: str) -> None:
    store = new_store(s3_bucket, 2)
    (key,) = finish(store)
    data = store.files.read(data_name(key))
    store.files.put_over(data_name(key), data[: len(data) // 2])
    for columns in (None, ["video_id"]):
        with pytest.raises(CorruptStoreError):
            read_data(store.files, key, columns)
    with pytest.raises(CorruptStoreError):
        read_group(store.files, key, 0, ["video_id"])
