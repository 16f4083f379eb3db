"""Where headers come from: this machine, a real HTTP server that is the Hub, a stored snapshot."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FILES, SHA, FakeHub, Hollow, candidate, nobody_listens, serving

from harness.checkpoints.ghost import TensorShape, ghost_header, tensors_of, write_ghost
from harness.errors import ModelError
from harness.header_sources import FoundHeaders, HeaderReady, find_headers, snapshot_of
from harness.machine import cache_root
from harness.pins import read_lock
from harness.registry import Candidate, load_registry
from harness.snapshots import Snapshot, load_snapshot, save_snapshot
from harness.sources import NotHere, resolve

TENSORS = {f"model.layers.{i}.w": TensorShape("BF16", (1 << 14, 1 << 14)) for i in range(12)}
MANY = {f"model.layers.{i}.mlp.some_long_name.weight": TensorShape("U8", (9,)) for i in range(3000)}


def hollow(tensors: dict[str, TensorShape]) -> Hollow:
    head, data = ghost_header(tensors)
    return Hollow(head, len(head) + data)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving() as server:
        server.files["model.safetensors"] = hollow(TENSORS)
        server.files["tokenizer.json"] = b'{"model": {"type": "BPE", "vocab": {"a": 0}}}'
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> str:
    endpoint = nobody_listens()
    monkeypatch.setenv("HF_ENDPOINT", f"http://{endpoint}")
    return endpoint


def find(place: Path, one: Candidate | None = None, **options: Any) -> FoundHeaders:
    return find_headers(
        one or candidate(),
        cache_dir=place / "cache",
        lock_path=place / "registry.lock",
        snapshots_dir=place / "snapshots",
        work_dir=place / "work",
        **options,
    )


def found(place: Path, one: Candidate | None = None, **options: Any) -> HeaderReady:
    answer = find(place, one, **options)
    assert isinstance(answer, HeaderReady), answer
    return answer


def not_here(place: Path, one: Candidate | None = None, **options: Any) -> NotHere:
    answer = find(place, one, **options)
    assert isinstance(answer, NotHere), answer
    assert answer.reason.isprintable() and answer.fix.isprintable()
    return answer


def store(place: Path, **changes: Any) -> None:
    known = {"standing": "published", "source": "a paper"}
    values: dict[str, Any] = {
        "name": "tiny",
        "origin": "org/tiny",
        "known": dict.fromkeys(("config", "tensors", "tokenizer", "weights"), known),
        "config": {"model_type": "llama"},
        "weights": {"format": "safetensors"},
        "tensors": {"model.layers.{0-3}.w": "BF16 [2, 2]"},
    }
    save_snapshot(Snapshot.model_validate(values | changes), place / "snapshots" / "tiny.json")


class TestHub:
    def test_headers_config_and_tokenizer_and_nothing_else(self, hub: FakeHub, place: Path) -> None:
        answer = found(place)
        assert {p.name for p in answer.folder.iterdir()} == {
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "chat_template.jinja",
        }
        assert tensors_of(answer.folder) == {n: TENSORS[n] for n in sorted(TENSORS)}
        assert (answer.folder / "tokenizer.json").read_bytes() == hub.files["tokenizer.json"]
        assert (answer.origin, answer.revision) == ("Hub org/tiny@0123456789ab (headers)", SHA)
        assert answer.facts.origin == "hub" and answer.facts.weight_format == "safetensors"
        assert {k.standing for k in answer.facts.parts.values()} == {"read"}
        assert answer.facts.weight_bytes == hollow(TENSORS).size > 6e9
        assert "pytorch_model.bin" in answer.facts.files
        fetched = {path.rsplit("/", 1)[1] for path in hub.seen if "/resolve/" in path}
        assert not fetched & {"pytorch_model.bin", "modeling_custom.py", "params.json"}
        assert hub.sent < 300_000

    def test_pins_the_commit_and_keeps_the_headers(
        self, hub: FakeHub, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = found(place)
        assert read_lock(place / "registry.lock")["org/tiny"].revision == SHA
        hub.seen.clear()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert found(place) == first
        assert hub.seen == []

    def test_all_shards_are_read(self, hub: FakeHub, place: Path) -> None:
        del hub.files["model.safetensors"]
        names = sorted(TENSORS)
        for number, part in enumerate((names[:5], names[5:]), start=1):
            file = f"model-0000{number}-of-00002.safetensors"
            hub.files[file] = hollow({n: TENSORS[n] for n in part})
        assert set(tensors_of(found(place).folder)) == set(TENSORS)

    @pytest.mark.parametrize("ranges", [True, False])
    def test_header_longer_than_the_first_read(
        self, hub: FakeHub, place: Path, ranges: bool
    ) -> None:
        hub.files["model.safetensors"] = hollow(MANY)
        hub.ranges = ranges
        assert len(hollow(MANY).head) > 256 << 10
        assert len(tensors_of(found(place).folder)) == 3000

    def test_server_that_ignores_ranges_is_hung_up_on(self, hub: FakeHub, place: Path) -> None:
        hub.ranges = False
        found(place)
        assert hub.sent < 100 << 20

    def test_weights_under_another_name_are_read_and_told(self, hub: FakeHub, place: Path) -> None:
        hub.files["weights.safetensors"] = hub.files.pop("model.safetensors")
        del hub.files["consolidated.safetensors"]
        answer = found(place)
        assert len(tensors_of(answer.folder)) == 12
        assert "weights.safetensors" in answer.facts.files

    def test_only_pickles(self, hub: FakeHub, place: Path) -> None:
        del hub.files["model.safetensors"], hub.files["consolidated.safetensors"]
        answer = found(place)
        assert answer.facts.weight_format == "pickle"
        assert answer.facts.parts["tensors"].standing == "missing"
        assert not any("pytorch_model" in path for path in hub.seen)

    @pytest.mark.parametrize("status", [401, 403])
    def test_gated(self, hub: FakeHub, place: Path, status: int) -> None:
        hub.status["org/tiny"] = status
        answer = not_here(place)
        assert answer.fix.startswith(f"accept the licence at {hub.url}/org/tiny, then run: hf auth")

    def test_gate_behind_the_metadata(self, hub: FakeHub, place: Path) -> None:
        hub.refuse_files = True
        assert "hf auth login" in not_here(place).fix
        store(place)
        answer = found(place)
        assert answer.origin == "stored snapshot of org/tiny"
        assert "refuses access to org/tiny (403)" in answer.facts.parts["tokenizer"].note

    def test_file_that_is_listed_but_not_there(self, hub: FakeHub, place: Path) -> None:
        hub.lost = "tokenizer.json"
        assert "answered 404 when asked for tokenizer.json" in not_here(place).reason

    def test_repository_without_a_config(self, hub: FakeHub, place: Path) -> None:
        del hub.files["config.json"]
        assert "has no config.json" in not_here(place).reason

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"{", "not valid JSON"),
            (b"{}", "names no model_type"),
            (b" " * (17 << 20), "more than 16 MB"),
        ],
    )
    def test_hostile_configs_are_refused(
        self, hub: FakeHub, place: Path, content: bytes, says: str
    ) -> None:
        hub.files["config.json"] = content
        with pytest.raises(ModelError, match=says) as caught:
            find(place)
        assert str(caught.value).isprintable()
        assert not (place / "cache" / "headers").exists()

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"\0" * 5000, "no header"),
            (struct.pack("<Q", 1 << 62) + b"{" * 99, "no header"),
            (Hollow(struct.pack("<Q", 50 << 30) + b"{", 60 << 30), "claims a header of 53687 MB"),
            (b"<!DOCTYPE html><html>", "web page"),
            (hollow(TENSORS)._replace(size=1 << 20), "truncated"),
        ],
    )
    def test_hostile_headers_are_a_fact_of_the_model_and_not_kept(
        self, hub: FakeHub, place: Path, content: bytes | Hollow, says: str
    ) -> None:
        hub.files["model.safetensors"] = content
        answer = found(place)
        tensors = answer.facts.parts["tensors"]
        assert tensors.standing == "missing" and says in tensors.note and tensors.note.isprintable()
        assert not list(answer.folder.glob("*.safetensors"))
        assert hub.sent < 1 << 20
        hub.files["model.safetensors"] = hollow(TENSORS)
        assert found(place).facts.parts["tensors"].standing == "read"

    def test_size_that_the_header_does_not_keep_is_refused(self, hub: FakeHub, place: Path) -> None:
        hub.claimed["model.safetensors"] = 1 << 20
        assert "truncated" in found(place).facts.parts["tensors"].note

    def test_connection_that_breaks_leaves_the_snapshot(
        self, hub: FakeHub, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("harness.hub_headers.CONTACT_TIMEOUT_S", 0.3)
        original = type(hub).finish_request

        def silent(self: Any, request: Any, address: Any) -> None:
            if any("/api/" in path for path in self.seen):
                request.recv(1 << 16)  # and no answer
                import time

                time.sleep(1)
                return
            original(self, request, address)

        monkeypatch.setattr(type(hub), "finish_request", silent)
        # One connection is kept open by the client; without keep-alive each request is its own.
        monkeypatch.setattr("fake_hub._Handler.protocol_version", "HTTP/1.0")
        assert "broke off while the headers" in not_here(place).reason
        store(place)
        assert found(place).facts.origin == "snapshot"


class TestOrder:
    def test_local_folder_speaks_for_itself(self, place: Path) -> None:
        folder = write_ghost(place / "model", {"model_type": "llama"}, TENSORS)
        answer = found(place, candidate(path=folder))
        assert answer.folder == folder and answer.facts.origin == "folder"
        assert answer.facts.parts["tensors"].standing == "read"
        assert answer.facts.parts["tokenizer"].standing == "missing"
        assert "does not exist" in not_here(place, candidate(path=place / "none")).reason

    def test_complete_download_is_used_without_asking(self, hub: FakeHub, place: Path) -> None:
        repo = place / "hub" / "models--org--tiny"
        snapshot = repo / "snapshots" / SHA
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text(SHA)
        write_ghost(
            snapshot, {"model_type": "llama"}, TENSORS, extra_files={"tokenizer.json": b"{}"}
        )
        answer = found(place)
        assert answer.folder == snapshot and answer.revision == SHA
        assert hub.seen == []

    @pytest.mark.usefixtures("closed")
    def test_snapshot_serves_where_the_hub_is_out_of_reach(self, place: Path) -> None:
        assert "cannot be reached" in not_here(place).reason
        assert not_here(place).fix.endswith("harness snapshot tiny")
        store(place)
        answer = found(place)
        assert answer.folder == place / "work" / "tiny"
        assert len(tensors_of(answer.folder)) == 4
        assert answer.facts.parts["config"].standing == "published"
        assert "cannot be reached" in answer.facts.parts["tokenizer"].note
        assert answer.revision is None

    def test_the_hub_comes_before_the_snapshot(self, hub: FakeHub, place: Path) -> None:
        store(place)
        assert found(place).facts.origin == "hub"
        assert hub.seen

    def test_offline_asks_nobody(self, hub: FakeHub, place: Path) -> None:
        store(place)
        assert found(place, online=False).facts.origin == "snapshot"
        assert hub.seen == []

    @pytest.mark.usefixtures("closed")
    def test_snapshot_of_another_repository_is_refused(self, place: Path) -> None:
        store(place, origin="org/other")
        with pytest.raises(ModelError, match=r"snapshot of org/other, but tiny is org/tiny"):
            find(place)

    def test_embedded_model_is_never_fetched(self, place: Path) -> None:
        wheel = candidate(requirement="a==1", sha256="0" * 64, member="a/b.gguf")
        assert not_here(place, wheel).fix.startswith("harness vet tiny --depth full")
        store(place, origin="a==1", revision="0" * 64)
        assert found(place, wheel).origin == "stored snapshot of a==1"


def test_snapshot_of_a_repository(hub: FakeHub, place: Path) -> None:
    taken = snapshot_of(
        candidate(),
        cache_dir=place / "cache",
        lock_path=place / "registry.lock",
        work_dir=place / "work",
    )
    assert isinstance(taken, Snapshot)
    assert (taken.origin, taken.revision) == ("org/tiny", SHA)
    assert taken.tensors == {"model.layers.{0-11}.w": "BF16 [16384, 16384]"}
    assert taken.weights.bytes == hollow(TENSORS).size
    assert taken.files == tuple(sorted(hub.files))
    assert {known.standing for known in taken.known.values()} == {"read"}
    assert [file.name for file in taken.tokenizer.files] == [
        "tokenizer.json",
        "chat_template.jinja",
    ]
    assert json.loads(FILES["config.json"]) == taken.config


@pytest.mark.usefixtures("closed")
def test_snapshot_of_what_cannot_be_reached(place: Path) -> None:
    store(place)
    taken = snapshot_of(
        candidate(),
        cache_dir=place / "cache",
        lock_path=place / "registry.lock",
        work_dir=place / "work",
    )
    assert isinstance(taken, NotHere)
    assert "cannot be reached" in taken.reason


@pytest.mark.real
def test_stored_snapshot_of_the_embedded_model_is_what_is_read(tmp_path: Path) -> None:
    registry = load_registry()
    embedded = registry.find("smollm2-135m-instruct")
    lock = tmp_path / "registry.lock"
    resolve(embedded, cache_dir=cache_root(), lock_path=lock)
    fresh = snapshot_of(embedded, cache_dir=cache_root(), lock_path=lock, work_dir=tmp_path)
    assert fresh == load_snapshot(registry.snapshots_dir / "smollm2-135m-instruct.json")
