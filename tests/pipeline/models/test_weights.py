from __future__ import annotations

import hashlib
import os
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch
from torch import nn

from pipeline.models import weights
from pipeline.models.weights import cache_folder, fetch, load_into, read_state, state_digest
from schemas.errors import ModelError, RetryableError
from tests.http_server import answering


class RunsCode:
    """What a malicious checkpoint does when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


class TestFetch:
    def test_local_in_place(self, tmp_path):
        path = tmp_path / "w.bin"
        path.write_bytes(b"weights")
        sha256 = hashlib.sha256(b"weights").hexdigest()
        assert fetch(str(path)) == fetch(f"file://{path}", sha256)
        assert fetch(str(path)).path == path
        assert fetch(str(path)).sha256 == sha256
        assert not cache_folder().exists()

    def test_remote_once_and_again_when_it_changes(self, monkeypatch):
        memory = fsspec.filesystem("memory")
        memory.pipe("/fetch/w.safetensors", b"one")
        first = fetch("memory://fetch/w.safetensors")
        assert first.sha256 == hashlib.sha256(b"one").hexdigest()
        assert first.path.parent == cache_folder()
        assert first.path.suffix == ".safetensors"
        with monkeypatch.context() as patch:
            patch.setattr(type(memory), "open", lambda *a, **k: pytest.fail("fetched twice"))
            assert fetch("memory://fetch/w.safetensors") == first
        memory.pipe("/fetch/w.safetensors", b"two")
        second = fetch("memory://fetch/w.safetensors")
        assert second.path != first.path
        assert second.path.read_bytes() == b"two"
        assert not list(cache_folder().glob(".part-*"))

    def test_a_damaged_copy_in_the_cache_is_replaced(self):
        fsspec.filesystem("memory").pipe("/fetch/w.bin", b"whole")
        good = fetch("memory://fetch/w.bin")
        good.path.write_bytes(b"torn")
        assert fetch("memory://fetch/w.bin", good.sha256) == good
        assert good.path.read_bytes() == b"whole"

    def test_without_anything_that_shows_a_change_it_is_fetched_again(self, monkeypatch):
        memory = fsspec.filesystem("memory")
        memory.pipe("/fetch/w.bin", b"one")
        monkeypatch.setattr(weights, "_VERSION_KEYS", ())
        assert fetch("memory://fetch/w.bin").sha256 == hashlib.sha256(b"one").hexdigest()
        memory.pipe("/fetch/w.bin", b"two")
        assert fetch("memory://fetch/w.bin").sha256 == hashlib.sha256(b"two").hexdigest()

    def test_another_hash_names_both(self, tmp_path):
        (tmp_path / "w.bin").write_bytes(b"weights")
        with pytest.raises(ModelError, match=r"SHA-256 [0-9a-f]{64}, expected was 0{64}"):
            fetch(str(tmp_path / "w.bin"), "0" * 64)

    @pytest.mark.parametrize(
        ("url", "match"),
        [
            ("no/such/file.pt", "there is no file"),
            ("memory://no/such/file.pt", "there is no file"),
            ("nosuch://bucket/file.pt", "cannot be opened: Protocol not known"),
            ("gs://bucket/file.pt", "cannot be opened: .*gcsfs"),
        ],
    )
    def test_nowhere(self, url, match):
        with pytest.raises(ModelError, match=match):
            fetch(url)

    def test_a_folder(self, tmp_path):
        (tmp_path / "file").touch()
        for path in (tmp_path, tmp_path / "file" / "below"):
            with pytest.raises(ModelError):
                fetch(str(path))

    @pytest.mark.parametrize(
        ("status", "error", "message"),
        [
            (403, ModelError, "access is denied"),
            (503, RetryableError, "run again"),
            (404, ModelError, "there is no file"),
        ],
    )
    def test_what_an_http_server_answers(self, status, error, message):
        with answering(status) as (url, _), pytest.raises(error, match=message):
            fetch(f"{url}/w.safetensors")

    @pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid"])
    def test_a_server_that_is_away_is_not_a_file_that_is_not_there(self, host):
        with pytest.raises(RetryableError, match="run again"):
            fetch(f"http://{host}/w.safetensors")

    def test_a_fault_that_may_pass(self, monkeypatch):
        memory = fsspec.filesystem("memory")
        memory.pipe("/fetch/w.bin", b"one")

        def away(*args: object, **kwargs: object) -> None:
            raise ConnectionResetError("gone")

        monkeypatch.setattr(type(memory), "open", away)
        with pytest.raises(RetryableError, match="ConnectionResetError: gone"):
            fetch("memory://fetch/w.bin")
        assert os.listdir(cache_folder()) == []


class TestReadState:
    @pytest.mark.parametrize("nest", [(), ("state_dict",), ("model",), ("model", "state_dict")])
    def test_torch_files_in_their_usual_nests(self, tmp_path, model, nest):
        content = model.state_dict()
        for name in nest:
            content = {name: content, "epoch": 7}
        torch.save(content, tmp_path / "w.pt")
        state = read_state(tmp_path / "w.pt")
        assert state.keys() == model.state_dict().keys()

    def test_safetensors(self, tmp_path, model):
        safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
        state = read_state(tmp_path / "w.safetensors")
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())

    def test_pickle_is_refused_and_not_run(self, tmp_path):
        torch.save({"state_dict": {}, "config": RunsCode(tmp_path / "was run")}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"weights_only=True.*convert it once: safetensors"):
            read_state(tmp_path / "w.pt")
        assert not (tmp_path / "was run").exists()

    @pytest.mark.parametrize(
        ("name", "content"),
        [("w.safetensors", b"no"), ("w.pt", b""), ("w.pt", b"PK\x03\x04 torn"), ("w.pt", b"hello, world")],
    )
    def test_damage(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=r"called so"):
            read_state(tmp_path / name, "called so")

    def test_no_state_says_what_is_there(self, tmp_path):
        torch.save({"optimizer": {"lr": 1.0}, "epoch": 3}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"holds no state_dict.*found optimizer, epoch"):
            read_state(tmp_path / "w.pt")
        torch.save(torch.zeros(3), tmp_path / "w.pt")
        with pytest.raises(ModelError, match="found Tensor"):
            read_state(tmp_path / "w.pt")


class TestLoadInto:
    @pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
    def test_prefixes_of_wrappers(self, model, prefix):
        state = {prefix + k: torch.full_like(v, 2) for k, v in model.state_dict().items()}
        load_into(model, state, "w.pt")
        assert (model[0].weight == 2).all()

    def test_a_model_whose_own_names_have_the_prefix(self):
        model = nn.Module()
        model.module = nn.Linear(2, 2)
        load_into(model, {"module.weight": torch.ones(2, 2), "module.bias": torch.ones(2)}, "w.pt")
        assert (model.module.weight == 1).all()

    def test_what_does_not_fit_is_named(self, model):
        state = dict(model.state_dict())
        del state["0.bias"]
        state["head.weight"] = torch.zeros(1)
        state["0.weight"] = torch.zeros(4, 5)
        with pytest.raises(ModelError) as e:
            load_into(model, state, "w.pt")
        assert "1 missing: 0.bias" in str(e.value)
        assert "1 unexpected: head.weight" in str(e.value)
        assert "0.weight is (4, 5), the model's (4, 3)" in str(e.value)

    def test_many_names_are_cut_short(self):
        with pytest.raises(ModelError, match=r"20 missing: 0.weight, .* and 15 more"):
            load_into(nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))), {"x": torch.zeros(1)}, "w.pt")


class TestStateDigest:
    def test_sees_names_values_shapes_and_dtypes(self, model):
        digests = {state_digest(model)}
        model[1].running_mean += 1
        digests.add(state_digest(model))
        digests.add(state_digest(nn.Sequential(*reversed(model))))
        digests.add(state_digest(model.to(torch.bfloat16)))
        flags = nn.Module()
        flags.register_buffer("on", torch.tensor([True, False]))
        digests.add(state_digest(flags))
        flags.register_buffer("on", torch.tensor([[True, False]]))
        digests.add(state_digest(flags))
        flags.register_buffer("on", torch.zeros(0))
        digests.add(state_digest(flags))
        assert len(digests) == 7
        assert all(d.startswith("state:") and len(d) == 70 for d in digests)

    def test_does_not_see_the_memory_format(self):
        conv = nn.Conv2d(3, 4, 3)
        before = state_digest(conv)
        assert state_digest(conv.to(memory_format=torch.channels_last)) == before
        assert state_digest(nn.Identity()) == state_digest(nn.ReLU())

    def test_refuses_what_it_cannot_hash(self):
        class Extra(nn.Linear):
            def get_extra_state(self) -> object:
                return {"anything": 1}

            def set_extra_state(self, state: object) -> None: ...

        with pytest.raises(ModelError, match="is no plain tensor"):
            state_digest(Extra(1, 1))
