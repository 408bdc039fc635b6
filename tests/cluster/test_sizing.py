"""Sizing: what a worker claims, how many there are, and the words where there is no room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.sizing import Node, Shape, Size, choose, shortage
from schemas.cluster import RayOptions
from schemas.errors import SettingsError

GB = 1e9


def node(cpus: float, gpus: float = 0.0, memory: float = 64 * GB, object_store: float = 16 * GB) -> Node:
    return Node(cpus, gpus, memory, object_store)


def size(*nodes: Node, device: str = "auto", decodes: bool = True, **options: object) -> Size:
    threads = options.pop("num_threads", None)
    given = RayOptions.model_validate(options)
    return choose(nodes, given, device=device, num_threads=threads, decodes=decodes)  # type: ignore[arg-type]


def missing(*nodes: Node, buffer: float = 0.25 * GB, **options: object) -> str:
    return shortage(nodes, size(*nodes, **options), buffer_bytes=int(buffer))


# -------------------------------------------------------------------- CPUs


def test_on_cpus_there_is_a_worker_and_a_decoder_for_each_core() -> None:
    found = size(node(4), node(4))
    assert (found.least, found.most) == (1, 8)
    assert found.shape == Shape(gpus=0.0, cpus=0.5, decoders=1, cpus_per_decoder=0.5)
    assert found.shape.bundles == [{"CPU": 0.5}, {"CPU": 0.5}]


def test_more_decoders_share_the_half_core_of_one() -> None:
    shape = size(node(4), decoders=4).shape
    assert (shape.decoders, shape.total_cpus) == (4, pytest.approx(1.0))


def test_a_cpu_run_on_gpu_nodes_claims_none() -> None:
    found = size(node(8, gpus=2), device="cpu")
    assert found.shape.gpus == 0 and found.most == 8


def test_indexing_has_one_worker_that_fits_any_machine() -> None:
    for cpus in (0.5, 1, 2, 64):
        found = size(node(cpus), decodes=False)
        assert (found.least, found.most) == (1, 1)
        assert found.shape.gpus == 0 and found.shape.total_cpus <= cpus
    assert size(node(64), decodes=False).shape.decoders == 4
    for cpus in (2, 4):  # a claim that was given for decoding holds here too
        found = size(node(cpus), decodes=False, cpus_per_decoder=1)
        assert found.shape.decoders == cpus - 1
        assert shortage([node(cpus)], found, buffer_bytes=0) == ""


def test_threads_are_claimed_and_claims_are_threads() -> None:
    assert size(node(8)).num_threads == 1
    found = size(node(8), num_threads=4)
    assert (found.num_threads, found.most, found.shape.total_cpus) == (4, 2, 4.0)
    assert size(node(8), cpus_per_worker=2).num_threads == 2
    assert size(node(8, gpus=1), num_threads=3).num_threads == 3


def test_no_more_workers_than_memory_holds() -> None:
    assert size(node(64, memory=12 * GB)).most == 10
    assert size(node(64, memory=12 * GB), workers="20").most == 20
    assert size(node(64, memory=0.1 * GB)).most == 1


# -------------------------------------------------------------------- GPUs


def test_with_gpus_each_worker_has_its_share_of_the_cores_for_decoding() -> None:
    found = size(node(32, gpus=4), node(32, gpus=4))
    assert (found.least, found.most) == (1, 8)
    assert found.shape == Shape(gpus=1.0, cpus=0.001, decoders=7, cpus_per_decoder=1.0)
    assert found.shape.bundles == [{"CPU": 0.001, "GPU": 1.0}] + [{"CPU": 1.0}] * 7


def test_every_gpu_finds_its_worker_a_place_where_other_nodes_have_most_cores() -> None:
    """Decode actors may lie anywhere, the worker only with its GPU: whole cores taken there leave it room."""
    found = size(node(32, gpus=8), *[node(64)] * 4)
    assert found.most == 8 and found.shape.decoders == 16
    assert found.most * found.shape.cpus < 1


def test_fractions_share_a_gpu_and_its_cores() -> None:
    found = size(node(16, gpus=2), gpus_per_worker=0.5)
    assert found.most == 4
    assert found.shape.total_cpus <= 4


def test_a_fraction_never_spans_two_gpus() -> None:
    assert size(node(64, gpus=3), gpus_per_worker=0.4).most == 6
    assert size(node(64, gpus=1), gpus_per_worker=0.1).most == 10
    assert size(node(64, gpus=3), node(64, gpus=3), gpus_per_worker=2).most == 2


def test_a_gpu_with_few_cores_is_used_all_the_same() -> None:
    for cpus, gpus in ((1, 1), (2, 1), (4, 8), (8, 8), (1, 4)):
        found = size(node(cpus, gpus=gpus))
        assert found.most == gpus
        assert found.most * found.shape.total_cpus <= cpus + 1e-6, (cpus, gpus, found)
        assert found.shape.decoders >= 1 and found.shape.cpus_per_decoder > 0
        assert not missing(node(cpus, gpus=gpus))


def test_there_are_not_more_decoders_than_do_good() -> None:
    assert size(node(256, gpus=1)).shape.decoders == 16


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_gpus_that_are_asked_for_and_not_there(device: str) -> None:
    with pytest.raises(SettingsError, match=r"no GPU.*12 CPUs"):
        size(node(12), device=device, gpus_per_worker=0.5)


def test_no_certain_gpu_can_be_asked_for() -> None:
    with pytest.raises(SettingsError, match=r"--device cuda:1.*say --device cuda"):
        size(node(12, gpus=2), device="cuda:1")


def test_cuda_without_a_gpu() -> None:
    with pytest.raises(SettingsError, match=r"--device cuda: the cluster has no GPU \(and 12 CPUs\)"):
        size(node(12), device="cuda")


# -------------------------------------------------------------------- options


def test_what_the_options_say_stands() -> None:
    shape = size(
        node(64, gpus=8),
        gpus_per_worker=2,
        cpus_per_worker=3,
        decoders=5,
        cpus_per_decoder=0.5,
        workers="2:3",
    )
    assert (shape.least, shape.most) == (2, 3)
    assert shape.shape == Shape(gpus=2.0, cpus=3.0, decoders=5, cpus_per_decoder=0.5)
    assert size(node(8), workers="3").most == 3
    assert size(node(8), cpus_per_worker=2, cpus_per_decoder=1.5, decoders=2).shape.total_cpus == 5
    assert size(node(8, gpus=1), gpus_per_worker=0).shape.gpus == 0


def test_many_small_workers_are_counted_whole() -> None:
    assert size(node(3), cpus_per_worker=0.1, cpus_per_decoder=0.2).most == 10


def test_no_bundle_is_empty() -> None:
    """Ray refuses a bundle of nothing, and a claim of 0 is allowed."""
    for nodes in ((node(8),), (node(8, gpus=1),)):
        for bundle in size(*nodes, cpus_per_worker=0, cpus_per_decoder=0).shape.bundles:
            assert any(value > 0 for value in bundle.values())


def test_a_shape_in_words() -> None:
    assert str(Shape(0.5, 1.0, 3, 0.25)) == "0.5 GPU and 1 CPU and 3 decode actors of 0.25 CPU"
    assert str(Shape(0.0, 0.5, 1, 0.5)) == "0.5 CPU and a decode actor of 0.5 CPU"


# -------------------------------------------------------------------- shortage


def test_what_fits_is_not_complained_of() -> None:
    assert missing(node(1)) == ""
    assert missing(node(2), workers="2") == ""
    assert missing(node(32, gpus=4), workers="4") == ""


def test_a_shortage_says_what_is_wanted_and_what_there_is() -> None:
    text = missing(node(2), workers="4")
    assert text.startswith("4 workers (0.5 CPU and a decode actor of 0.5 CPU each) want ")
    assert "4 CPUs where the cluster has 2" in text
    assert "GPU" not in text and "memory" not in text
    assert "1200 CPUs where the cluster has 1000" in missing(node(1000), workers="1200")
    assert "3 GPUs where the cluster has 2" in missing(node(64, gpus=2), workers="3")


def test_a_shortage_of_memory_is_in_gigabytes() -> None:
    text = missing(node(4, memory=1.5 * GB, object_store=0.2 * GB), workers="3")
    assert "2.55 GB of memory where the cluster has 1.5" in text
    assert "0.75 GB of object store where the cluster has 0.2" in text


def test_an_empty_cluster_is_too_small() -> None:
    for decodes in (True, False):
        text = shortage([], size(decodes=decodes), buffer_bytes=0)
        assert text.startswith("a worker (") and "has 0" in text


def test_a_worker_that_no_single_node_holds() -> None:
    text = missing(node(2), node(2), cpus_per_worker=3, cpus_per_decoder=0.5)
    assert "one node" in text and "3 CPU" in text and "2 CPU" in text
    text = missing(node(2), node(2), cpus_per_worker=1, cpus_per_decoder=3)
    assert "one node" in text and "3 CPU" in text and "2 CPU" in text


@given(
    cpus=st.lists(st.integers(1, 128), min_size=1, max_size=5),
    gpus=st.integers(0, 8),
    device=st.sampled_from(["auto", "cpu"]),
    decodes=st.booleans(),
)
def test_by_default_a_worker_fits_any_cluster(cpus: list[int], gpus: int, device: str, decodes: bool) -> None:
    nodes = [node(cpus[0], gpus=gpus), *[node(n) for n in cpus[1:]]]
    found = size(*nodes, device=device, decodes=decodes)
    assert found.least == 1 <= found.most
    assert found.shape.decoders >= 1
    in_ray = sum(round(bundle["CPU"] * 10_000) for bundle in found.shape.bundles)  # it counts in such units
    assert found.most * in_ray <= sum(cpus) * 10_000
    assert found.most * found.shape.gpus <= gpus
    assert shortage(nodes, found, buffer_bytes=1 << 28) == ""
