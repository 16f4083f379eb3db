"""The lock file: one pin a repository, kept through races, and damage that is named."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import FetchError, RegistryError
from harness.pins import add_pin, read_lock

SHA = "0123456789abcdef0123456789abcdef01234567"
NEW_SHA = "f" * 40


class TestLockFile:
    def test_is_sorted_readable_and_dated(self, tmp_path: Path) -> None:
        lock = tmp_path / "registry.lock"
        for repo in ("z/z", "a/a", "m/m"):
            add_pin(lock, tmp_path / "cache", repo, SHA)
        content = json.loads(lock.read_text())
        assert list(content) == ["a/a", "m/m", "z/z"]
        assert set(content["a/a"]) == {"revision", "first_seen"}
        assert lock.read_text().endswith("}\n")
        assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [lock.name]

    def test_first_pin_holds(self, tmp_path: Path) -> None:
        lock = tmp_path / "registry.lock"
        add_pin(lock, tmp_path, "a/a", SHA)
        assert add_pin(lock, tmp_path, "a/a", NEW_SHA).revision == SHA

    def test_writers_at_the_same_time_lose_nothing(self, tmp_path: Path) -> None:
        lock = tmp_path / "registry.lock"
        repos = [f"org/m{number}" for number in range(24)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda repo: add_pin(lock, tmp_path, repo, SHA), repos))
        assert sorted(read_lock(lock)) == sorted(repos)

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ('{\n"a/a": \n', ":3:1"),
            ("<<<<<<< HEAD\n{}\n", ":1:1"),
            ('{"a/a": {"revision": "main", "first_seen": "2026-01-01"}}', "a/a.revision"),
            ('{"a/a": {"revision": "' + SHA + '"}}', "a/a.first_seen"),
            ("[]", "registry.lock"),
            ("\udcff", "registry.lock"),
            ("[" * 100_000, "registry.lock"),
        ],
    )
    def test_damage_is_named(self, tmp_path: Path, text: str, place: str) -> None:
        lock = tmp_path / "registry.lock"
        lock.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(RegistryError) as caught:
            read_lock(lock)
        assert place in str(caught.value) and "restore the lock file" in str(caught.value)

    def test_place_that_cannot_be_written_is_an_operational_error(self, tmp_path: Path) -> None:
        with pytest.raises(FetchError, match="cannot be pinned"):
            add_pin(tmp_path / "none" / "registry.lock", tmp_path, "a/a", SHA)
