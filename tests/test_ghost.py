"""Ghost folders and packed tensor tables."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checkpoints.folder import check_model_folder, count_parameters, read_weight_headers
from harness.checkpoints.ghost import (
    TensorShape,
    header_fingerprint,
    tensors_of,
    write_ghost,
)
from harness.checkpoints.safetensors import DTYPE_BITS, read_header
from harness.checkpoints.tensor_table import pack, unpack
from harness.errors import ModelError, OperationalError

LLAMA = {"model_type": "llama", "hidden_size": 8, "tie_word_embeddings": True}
TENSORS = {
    "model.embed_tokens.weight": TensorShape("BF16", (100, 8)),
    "model.layers.0.mlp.up_proj.weight": TensorShape("BF16", (32, 8)),
    "model.layers.1.mlp.up_proj.weight": TensorShape("BF16", (32, 8)),
    "scalar": TensorShape("F32", ()),
}
HUGE = {f"model.layers.{i}.w": TensorShape("BF16", (1 << 15, 1 << 15)) for i in range(40)}


class TestGhost:
    def test_looks_like_the_model_and_holds_nothing(self, tmp_path: Path) -> None:
        folder = write_ghost(tmp_path / "big", LLAMA, HUGE)
        file = folder / "model.safetensors"
        assert file.stat().st_size > 80 << 30
        assert file.stat().st_blocks * 512 < 64 << 10
        assert tensors_of(folder) == {name: HUGE[name] for name in sorted(HUGE)}
        assert check_model_folder(folder, tokenizer=False).parameters == 40 << 30

    def test_header_is_one_that_the_reference_reads(self, tmp_path: Path) -> None:
        from safetensors import safe_open

        folder = write_ghost(tmp_path / "g", LLAMA, TENSORS)
        with safe_open(folder / "model.safetensors", framework="numpy") as file:
            assert set(file.keys()) == set(TENSORS)
            assert file.get_slice("model.embed_tokens.weight").get_shape() == [100, 8]
        header = read_header(folder / "model.safetensors")
        assert count_parameters(header.tensors, LLAMA) == 800 + 2 * 256 + 1
        data = (folder / "model.safetensors").stat().st_size
        assert (data - 2 * (800 + 2 * 256) - 4) % 8 == 0  # data begins aligned

    def test_config_is_kept_and_files_are_added(self, tmp_path: Path) -> None:
        other = tmp_path / "given"
        other.write_text("[]")
        extra = {"tokenizer.json": b'{"model": {}}', "merges.txt": other}
        folder = write_ghost(tmp_path / "g", {**LLAMA, "ä": None}, TENSORS, extra_files=extra)
        assert json.loads((folder / "config.json").read_text()) == {**LLAMA, "ä": None}
        assert (folder / "tokenizer.json").read_bytes() == b'{"model": {}}'
        assert (folder / "merges.txt").read_text() == "[]"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["g", "given"]

    def test_another_ghost_takes_its_place_whole(self, tmp_path: Path) -> None:
        write_ghost(tmp_path / "g", LLAMA, TENSORS, extra_files={"vocab.json": b"{}"})
        write_ghost(tmp_path / "g", LLAMA, {})
        assert [p.name for p in (tmp_path / "g").iterdir()] == ["config.json"]

    @pytest.mark.parametrize(
        "name", ["../up", "a/b", "config.json", "model.safetensors", "", "..", "/etc/x"]
    )
    def test_files_stay_in_the_folder(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelError, match="no name for a file"):
            write_ghost(tmp_path / "g", LLAMA, TENSORS, extra_files={name: b""})
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "dtype", "shape"),
        [
            ("../x", "F32", (1,)),
            ("x\n", "F32", (1,)),
            ("", "F32", (1,)),
            ("__metadata__", "F32", (1,)),
            ("n" * 513, "F32", (1,)),
            ("x", "F31", (1,)),
            ("x", "F32", (-1,)),
            ("x", "F4", (3,)),
            ("x", "F32", (1 << 47, 1 << 47)),
            ("x", "F32", (1,) * 9),
        ],
    )
    def test_impossible_tensors_are_refused(
        self, tmp_path: Path, name: str, dtype: str, shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(ModelError, match="correct the tensor list"):
            write_ghost(tmp_path / "g", LLAMA, {name: TensorShape(dtype, shape)})
        assert list(tmp_path.iterdir()) == []

    def test_file_system_without_holes_is_refused_before_it_is_filled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[int] = []
        stat = Path.stat

        def stored(self: Path, **_: object) -> os.stat_result:
            real = stat(self)
            seen.append(real.st_size)
            return os.stat_result(tuple(real), {"st_blocks": real.st_size // 512})

        monkeypatch.setattr(Path, "stat", stored)
        with pytest.raises(OperationalError, match="cannot hold sparse files"):
            write_ghost(tmp_path / "g", LLAMA, HUGE)
        monkeypatch.undo()
        assert max(seen) <= 64 << 20
        assert list(tmp_path.iterdir()) == []

    def test_file_too_large_for_the_file_system(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Small:
            def __init__(self, file: object) -> None:
                self.file = file

            def __enter__(self) -> Small:
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()  # type: ignore[attr-defined]

            def __getattr__(self, name: str) -> object:
                return getattr(self.file, name)

            def truncate(self, size: int) -> int:
                if size > 4 << 30:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                return self.file.truncate(size)  # type: ignore[attr-defined,no-any-return]

        real = Path.open
        monkeypatch.setattr(Path, "open", lambda p, mode="r", **k: Small(real(p, mode, **k)))
        with pytest.raises(OperationalError, match="sparse file of 86 GB"):
            write_ghost(tmp_path / "g", LLAMA, HUGE)
        monkeypatch.undo()
        assert list(tmp_path.iterdir()) == []


class TestFingerprint:
    def test_covers_what_is_looked_at_and_not_the_data(self, tmp_path: Path) -> None:
        tokenizer = {"tokenizer.json": b"{}"}
        folder = write_ghost(tmp_path / "g", LLAMA, TENSORS, extra_files=tokenizer)
        first = header_fingerprint(folder)
        with (folder / "model.safetensors").open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"data")
        assert header_fingerprint(folder) == first
        changed = {
            "headers": {**TENSORS, "scalar": TensorShape("F16", ())},
            "config": TENSORS,
            "tokenizer": TENSORS,
        }
        for part, tensors in changed.items():
            config = {**LLAMA, "x": 1} if part == "config" else LLAMA
            extra = {"tokenizer.json": b"[]"} if part == "tokenizer" else tokenizer
            write_ghost(folder, config, tensors, extra_files=extra)
            other = header_fingerprint(folder)
            assert {key for key in first if first[key] != other[key]} == {part}

    def test_is_the_same_however_tensors_are_spread_over_files(self, tmp_path: Path) -> None:
        whole = write_ghost(tmp_path / "a", LLAMA, TENSORS)
        names = sorted(TENSORS)
        split = write_ghost(tmp_path / "b", LLAMA, {n: TENSORS[n] for n in names[:2]})
        rest = write_ghost(tmp_path / "c", LLAMA, {n: TENSORS[n] for n in names[2:]})
        (rest / "model.safetensors").rename(split / "model-2.safetensors")
        assert header_fingerprint(split) == header_fingerprint(whole)

    def test_damaged_headers_have_one_too(self, tmp_path: Path) -> None:
        folder = write_ghost(tmp_path / "g", LLAMA, {})
        empty = header_fingerprint(folder)["headers"]
        (folder / "model.safetensors").write_bytes(b"\1")
        damaged = header_fingerprint(folder)["headers"]
        assert empty.startswith("none ") and damaged.startswith("none ") and empty != damaged
        (folder / "config.json").unlink()
        with pytest.raises(ModelError, match=r"config\.json is missing"):
            header_fingerprint(folder)


PARTS = st.sampled_from(["model", "layers", "w", "0", "1", "2", "10", "07", "{", "}", "{0-1}", "é"])
SHAPES = st.builds(
    TensorShape,
    st.sampled_from(sorted(DTYPE_BITS)),
    st.lists(st.integers(0, 1 << 40), max_size=3).map(tuple),
)


class TestTable:
    @settings(max_examples=300, deadline=None)
    @given(
        st.dictionaries(st.lists(PARTS, min_size=1, max_size=5).map(".".join), SHAPES, max_size=40)
    )
    def test_round_trip_is_lossless(self, tensors: dict[str, TensorShape]) -> None:
        packed = pack(tensors)
        assert unpack(packed) == tensors
        assert pack(unpack(packed)) == packed
        assert json.loads(json.dumps(packed)) == packed

    @settings(max_examples=100, deadline=None)
    @given(st.dictionaries(st.text(st.characters(exclude_categories=["C"])), SHAPES, max_size=5))
    def test_round_trip_of_any_printable_name(self, tensors: dict[str, TensorShape]) -> None:
        assert unpack(pack(tensors)) == tensors

    def test_is_compact(self) -> None:
        same = TensorShape("BF16", (2, 2))
        names = [f"m.layers.{i}.experts.{j}.w" for i in range(3) for j in range(8)]
        assert pack(dict.fromkeys(names, same)) == {"m.layers.{0-2}.experts.{0-7}.w": "BF16 [2, 2]"}
        gaps = dict.fromkeys([f"l.{i}" for i in (0, 1, 2, 5, 7, 8)], same)
        assert pack(gaps) == {"l.{0-2,5,7-8}": "BF16 [2, 2]"}

    @pytest.mark.parametrize(
        ("table", "says"),
        [
            ({"l.{0-99999999}": "F32 [1]"}, "bad range"),
            ({"l.{0-999999}": "F32 [1]"}, "bad range"),
            ({"l.{0-9999}.{0-9999}": "F32 [1]"}, "more tensors than a model has"),
            ({"l.{3-1}": "F32 [1]"}, "bad range"),
            ({"l.{1,1}": "F32 [1]"}, "bad range"),
            ({"l.{01}": "F32 [1]"}, "bad range"),
            ({"l.{a}": "F32 [1]"}, "brace that stands for nothing"),
            ({"l.{0-1": "F32 [1]"}, "brace that stands for nothing"),
            ({"l.{0-1}": "F32 [1]", "l.1": "F32 [1]"}, "again"),
            ({"l": "F99 [1]"}, "no dtype with a shape"),
            ({"l": "F32 [-1]"}, "no dtype with a shape"),
            ({"l": "F32"}, "no dtype with a shape"),
            ({"l": "F32 [999999999999999]"}, "no dtype with a shape"),
        ],
    )
    def test_bad_tables_are_refused(self, table: dict[str, str], says: str) -> None:
        with pytest.raises(ModelError, match=says):
            unpack(table)


def test_read_weight_headers_of_a_ghost_costs_nothing(tmp_path: Path) -> None:
    folder = write_ghost(tmp_path / "g", LLAMA, HUGE)
    assert read_weight_headers(folder)["model.safetensors"].elements == 40 << 30
