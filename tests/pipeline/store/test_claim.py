"""One writer at a time, and what becomes of the claim of one that died."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.store import claim as module
from pipeline.store.claim import Claim
from pipeline.store.files import StoreFiles

pytestmark = pytest.mark.s3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.3)


def all_at_once(bucket: str, number: int) -> list[Claim]:
    """What of so many writers came to have the claim."""
    files = [StoreFiles(f"{bucket}/student") for _ in range(number)]
    with ThreadPoolExecutor(number) as pool:
        return [c for c in pool.map(lambda f: Claim.take(f, "c.json"), files) if c is not None]


def test_one_of_many_has_it_until_it_is_given_back(s3_bucket: str) -> None:
    files = StoreFiles(f"{s3_bucket}/student")
    (first,) = all_at_once(s3_bucket, 8)
    assert first.renew() and Claim.take(files, "c.json") is None
    first.give_back()
    (second,) = all_at_once(s3_bucket, 2)
    first.give_back()  # it is another's now
    assert second.is_ours() and not first.renew() and second.is_ours()


def test_an_old_claim_is_taken_over_by_one(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (dead,) = all_at_once(s3_bucket, 1)
    monkeypatch.setattr(module, "OLD_SECONDS", 0.0)
    (heir,) = all_at_once(s3_bucket, 4)
    assert heir.is_ours() and not dead.is_ours()


def test_a_claim_that_cannot_be_read_is_old(s3_bucket: str) -> None:
    StoreFiles(f"{s3_bucket}/student").put_over("c.json", b"half a claim")
    assert len(all_at_once(s3_bucket, 3)) == 1
