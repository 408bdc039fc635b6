"""The id of a command, and what a submit does where attempts at it are there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.attempts import Attach, Send, checked_id, decide, find, work_id
from schemas.errors import SettingsError
from schemas.submission import ACTIVE, FAILED, PENDING, RUNNING, STOPPED, SUCCEEDED, Job

WORDS = ["teach", "s3://b/videos", "-o", "s3://b/out", "--limit", "5"]
STATUSES = (PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED)


def test_the_id_is_of_the_work_and_not_of_how_it_is_written() -> None:
    work = work_id(WORDS)
    assert re.fullmatch(r"locum-teach-[0-9a-f]{12}", work) and checked_id(work) == work
    assert work_id([*WORDS[:-2], "--limit=5", "--json", "-q"]) == work
    others = [
        work_id(["index", *WORDS[1:]]),
        work_id([*WORDS[:-1], "6"]),
        work_id(WORDS, config=b""),
        work_id(WORDS, config=b"limit: 5"),
        work_id(WORDS, folder="gcs://a.zip"),
        work_id([WORDS[0], *WORDS[2:4], WORDS[1], *WORDS[4:], "--", "--json"]),
        work_id([WORDS[0], *WORDS[2:4], WORDS[1], *WORDS[4:], "--"]),
    ]
    assert len({work, *others}) == len(others) + 1


@pytest.mark.parametrize(
    ("jobs", "action"),
    [
        ([], Send("w")),
        ([("w", PENDING)], Attach("w")),
        ([("w", RUNNING), ("other", SUCCEEDED)], Attach("w")),
        ([("w", SUCCEEDED)], Send("w-2")),
        ([("w", FAILED), ("w-2", STOPPED)], Send("w-3")),
        ([("w-2", RUNNING), ("w", STOPPED)], Attach("w-2")),
        ([("w-9", FAILED), ("w-10", FAILED)], Send("w-11")),
        ([("w-2", FAILED)], Send("w-3")),  # the first was deleted
        ([("w-1", RUNNING), ("w-02", RUNNING), ("w-x", RUNNING), ("ww", RUNNING)], Send("w")),
    ],
)
def test_what_a_submit_does(jobs: list[tuple[str, str]], action: Attach | Send) -> None:
    assert decide("w", jobs) == action


@given(
    st.dictionaries(st.integers(1, 12).map(lambda n: "w" if n == 1 else f"w-{n}"), st.sampled_from(STATUSES))
)
def test_nothing_is_sent_beside_what_is_under_way_or_under_an_id_that_is_taken(jobs: dict[str, str]) -> None:
    action = decide("w", jobs.items())
    if any(status in ACTIVE for status in jobs.values()):
        assert isinstance(action, Attach) and jobs[action.job_id] in ACTIVE
    else:
        assert isinstance(action, Send) and action.job_id not in jobs


def test_a_job_is_found_by_the_beginning_of_its_id() -> None:
    jobs = [Job(name, STOPPED) for name in ("locum-teach-aa", "locum-teach-aa-2", "locum-teach-ab", "mine-3")]
    assert find("locum-teach-aa", jobs).id == "locum-teach-aa"
    assert find("locum-teach-aa-", jobs).id == "locum-teach-aa-2"
    assert find("locum-teach-ab", jobs).id == find("mine", jobs[3:]).id.replace("mine-3", "locum-teach-ab")
    with pytest.raises(SettingsError, match="several jobs begin with 'locum-teach-a'"):
        find("locum-teach-a", jobs)
    with pytest.raises(SettingsError, match="begins with 'x'; there are locum-teach-aa, "):
        find("x", jobs)
    with pytest.raises(SettingsError, match="there are none"):
        find("x", [])


def test_of_several_attempts_the_last_is_found() -> None:
    jobs = [Job(name, STOPPED) for name in ("work", "work-2", "work-10", "work-9")]
    assert find("wor", jobs).id == "work-10"


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "-a", "é", "a" * 101])
def test_an_id_that_is_no_name_is_refused(bad: str) -> None:
    with pytest.raises(SettingsError, match="--submission-id"):
        checked_id(bad)
