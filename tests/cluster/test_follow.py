"""Following a job: every letter of its log once, whatever becomes of the connection, until it has ended."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.follow import Unseen, follow, stop
from schemas.errors import RetryableError, SettingsError
from schemas.submission import PENDING, RUNNING, STOPPED, SUCCEEDED, Job
from tests.fake_jobs import FakeJobs

DONE = Job("w", SUCCEEDED, driver_exit_code=0)
LOST = RetryableError("the connection broke")


def followed(jobs: FakeJobs, **how: object) -> tuple[Job, str, list[str], list[float]]:
    shown: list[str] = []
    said: list[str] = []
    slept: list[float] = []
    times = count()
    job = follow(
        jobs, "w", shown.append, said.append, sleep=slept.append, clock=lambda: float(next(times)), **how
    )  # type: ignore[arg-type]
    return job, "".join(shown), said, slept


@given(st.lists(st.text(max_size=5), max_size=6), st.data())
def test_of_a_text_that_comes_again_everything_is_new_once(pieces: list[str], data: st.DataObject) -> None:
    text, unseen, seen = "".join(pieces), Unseen(), ""
    for _ in range(data.draw(st.integers(0, 4))):
        unseen.again()
        cut = data.draw(st.integers(0, len(text)))
        middle = data.draw(st.integers(0, cut))
        seen += unseen.take(text[:middle]) + unseen.take(text[middle:cut])
        assert text.startswith(seen)
    unseen.again()
    assert seen + unseen.take(text) == text


def test_the_log_is_shown_once_over_broken_connections() -> None:
    jobs = FakeJobs(
        {"w": Job("w", RUNNING)},
        connections=[["one\nt", LOST], [LOST], ["one\ntw", "o\n", LOST], ["one\n", "two\nthree\n"]],
        printed="one\ntwo\nthree\nfour\n",
        ends_as=DONE,
    )
    job, shown, said, slept = followed(jobs)
    assert job == DONE and shown == "one\ntwo\nthree\nfour\n"
    assert said and all("broke" in word for word in said)
    assert len(slept) == 3


def test_a_silence_is_no_fault_and_costs_little() -> None:
    jobs = FakeJobs({"w": Job("w", RUNNING)}, connections=[[] for _ in range(50)], printed="x", ends_as=DONE)
    job, shown, said, slept = followed(jobs)
    assert job == DONE and shown == "x" and not said and set(slept) == {0.5}


def test_why_it_waits_is_said_once() -> None:
    waits = Job("w", PENDING, message="waiting for the runtime environment")
    jobs = FakeJobs({"w": waits}, connections=[[], [], []], ends_as=DONE)
    assert followed(jobs)[2] == ["waiting for the runtime environment"]


def test_a_cluster_that_is_away_for_a_while_is_waited_for() -> None:
    jobs = FakeJobs(
        {"w": Job("w", RUNNING)}, connections=[[LOST], [LOST], [LOST], ["all\n"]], away=3, ends_as=DONE
    )
    job, shown, said, slept = followed(jobs)
    assert job == DONE and shown == "all\n" and len(said) == 1 and "does not answer" in said[0]
    assert slept == [0.5, 1.0, 2.0]


def test_a_cluster_that_stays_away_ends_it() -> None:
    jobs = FakeJobs({"w": Job("w", RUNNING)}, connections=[[LOST] for _ in range(99)], away=999)
    with pytest.raises(
        RetryableError, match="has not answered for 30 s: connection refused; the job w may go on"
    ):
        followed(jobs, patience_seconds=30.0)


def test_pauses_have_an_end() -> None:
    jobs = FakeJobs(
        {"w": Job("w", RUNNING)}, connections=[[LOST] for _ in range(20)], printed="x", ends_as=DONE
    )
    assert max(followed(jobs)[3]) == 30.0


def test_a_cluster_that_was_started_anew_ends_it() -> None:
    with pytest.raises(RetryableError, match="no longer knows the job w"):
        followed(FakeJobs(connections=[["one\n", LOST]]))


def test_an_end_that_cannot_be_read_is_said() -> None:
    jobs = FakeJobs({"w": DONE}, connections=[["one\n", LOST]])
    asked = iter([False, True])
    jobs._asked = lambda: (_ for _ in ()).throw(RetryableError("gone")) if next(asked) else None  # type: ignore[method-assign]
    job, shown, said, _ = followed(jobs)
    assert job == DONE and shown == "one\n" and said == ["the end of the log cannot be read: gone"]


def test_stop_waits_until_it_has_ended() -> None:
    jobs = FakeJobs({"w": Job("w", RUNNING)})
    assert stop(jobs, "w").status == STOPPED
    jobs = FakeJobs({"w": Job("w", RUNNING)})
    jobs.stop = lambda job_id: None  # type: ignore[method-assign]
    times = count()
    with pytest.raises(RetryableError, match="is RUNNING 5 s after"):
        stop(jobs, "w", patience_seconds=5, sleep=lambda s: None, clock=lambda: float(next(times)))


def test_a_token_that_runs_out_is_no_end_of_the_job() -> None:
    class Refuses(FakeJobs):
        def one(self, job_id: str) -> Job | None:
            raise SettingsError("401: the token has expired")

    with pytest.raises(RetryableError, match=r"401.*may go on"):
        follow(Refuses(), "j", lambda _: None, lambda _: None, sleep=lambda _: None)
