"""What a handle remembers of a store: footers while their files stay, and who wrote a shard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.store import shard_store
from pipeline.store.files import StoreFiles
from pipeline.store.mend import remove
from pipeline.store.shard_store import ShardStore, Stamp
from tests.failing_proxy import failing
from tests.pipeline.store.stores import finish, new_store, result_of, video_id
from tests.s3_server import forget_clients


def test_a_footer_is_read_once_while_its_file_stays(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(place)
    finish(store)
    read: list[object] = []

    def reading(files: StoreFiles, key: object) -> object:
        read.append(key)
        return original(files, key)  # type: ignore[arg-type]

    original = shard_store.read_footer
    monkeypatch.setattr(shard_store, "read_footer", reading)
    first = list(store.footers())
    assert list(store.footers()) == first and len(read) == len(first) > 1
    remove(ShardStore.open(store.url), [video_id(0)])  # by another handle, which rewrites one file
    read.clear()
    again = {f.key: f for f in store.footers()}
    changed = [f.key for f in first if again[f.key] != f]
    assert len(changed) == 1 and set(read) == set(changed)


def test_a_writer_that_comes_again_finds_its_own_file(place: str) -> None:
    """As one does whose first attempt was stored, and the answer to it lost."""
    store = new_store(place)
    shard = store.shard(store.pending()[0])
    stamp = Stamp.of_now()
    assert store.commit(shard, result_of(shard), stamp)
    again = store.commit(shard, result_of(shard), stamp)
    assert again is not store.files.is_local  # on a disk no answer is lost
    assert not store.commit(shard, result_of(shard), Stamp.of_now())


@pytest.mark.s3
def test_what_is_done_is_one_listing_a_thousand_shards(
    s3_server: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(s3_server, 0.0) as (url, proxy):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        forget_clients()
        store = new_store(s3_bucket, videos=1100, shard_clips=2)
        with ThreadPoolExecutor(8) as pool:
            names = [f"data/g0001-{n:06d}.parquet" for n in range(1100)]
            list(pool.map(lambda name: store.files.put_over(name, b"x"), names))
        before, proxy.by_method["HEAD"] = proxy.lists, 0
        assert len(store.committed()) == 1100 and store.pending() == []
        assert proxy.lists - before <= 2 * 2 + 1  # each of the two, and one of plans
        assert proxy.by_method["HEAD"] == 0
