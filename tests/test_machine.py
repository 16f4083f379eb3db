"""The machine: facts about the one the tests run on, and the choice of BLAS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from harness import machine
from harness.errors import UsageError

linux = pytest.mark.skipif(sys.platform != "linux", reason="preloading is done on Linux only")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("HARNESS_BLAS", "HARNESS_CACHE", "LD_PRELOAD"):
        monkeypatch.delenv(variable, raising=False)
    machine._choose_blas.cache_clear()
    yield
    machine._choose_blas.cache_clear()


class TestFacts:
    def test_say_what_this_machine_is(self) -> None:
        facts = machine.machine_facts()
        assert facts.os.split()[0] in ("Linux", "macOS")
        assert facts.architecture and facts.chip
        assert 1 <= facts.cores <= (os.cpu_count() or 1)
        assert 0.5 < facts.memory_gb < 10_000
        assert facts.packages["harness"] == harness.__version__
        assert facts.packages["mlx"].count(".") >= 1
        assert (facts.metal_working_set_gb is None) == (sys.platform != "darwin")
        assert (facts.git_commit is None) == (facts.git_dirty is None)

    def test_memory_is_what_the_kernel_says(self) -> None:
        if sys.platform != "linux":
            pytest.skip("/proc is Linux's")
        line = next(x for x in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in x)
        total_gb = int(line.split()[1]) * 1024 / 1e9
        assert machine.memory_gb() <= total_gb * 1.001

    def test_import_needs_neither_engine_nor_network(self) -> None:
        script = (
            "import sys, harness.machine, harness.registry, harness.sources, harness.doctor;"
            "heavy = {'mlx', 'mlx_lm', 'llama_cpp', 'torch', 'transformers'} & set(sys.modules);"
            "sys.exit(', '.join(heavy) or 0)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestGit:
    def run(self, folder: Path, *arguments: str) -> None:
        settings = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        command = ["git", *settings, "-C", str(folder), *arguments]
        subprocess.run(command, check=True, capture_output=True)

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    def test_commit_and_dirty_flag_of_the_checkout_itself(self, tmp_path: Path) -> None:
        assert machine._git_state(tmp_path) == (None, None)
        self.run(tmp_path, "init")
        assert machine._git_state(tmp_path) == (None, None)
        (tmp_path / "file").write_text("1")
        self.run(tmp_path, "add", "file")
        self.run(tmp_path, "commit", "-m", "one")
        commit, dirty = machine._git_state(tmp_path)
        assert commit is not None and len(commit) == 40 and dirty is False
        (tmp_path / "file").write_text("2")
        assert machine._git_state(tmp_path) == (commit, True)

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    def test_a_repository_around_it_is_not_its_own(self, tmp_path: Path) -> None:
        self.run(tmp_path, "init")
        self.run(tmp_path, "commit", "--allow-empty", "-m", "one")
        inside = tmp_path / "site-packages"
        inside.mkdir()
        assert machine._git_state(inside) == (None, None)


class TestBudget:
    def test_without_metal_it_is_that_of_such_a_mac(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "metal_working_set_gb", lambda: None)
        # recommendedMaxWorkingSetSize of 16 GB Macs, as llama.cpp prints it: M2 and M4.
        assert machine.working_set_gb(16.0) == pytest.approx((11.453, 12.713), abs=0.001)
        assert machine.working_set_gb(8.0) == pytest.approx((5.727, 6.357), abs=0.001)

    def test_metal_knows_better(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "metal_working_set_gb", lambda: 11.45)
        assert machine.working_set_gb(32.0) == (11.45, 11.45)


class TestCacheRoot:
    def test_environment_overrides(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert machine.cache_root().name == "finetune-harness"
        monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "here"))
        assert machine.cache_root() == tmp_path / "here"
        monkeypatch.setenv("HARNESS_CACHE", "~/there")
        assert machine.cache_root() == Path.home() / "there"


class TestBlas:
    def test_unknown_wish_is_a_usage_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HARNESS_BLAS", "mkl")
        with pytest.raises(UsageError, match="use none, openblas or torch"):
            machine.worker_environment()

    @linux
    def test_none_preloads_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HARNESS_BLAS", "none")
        assert machine.worker_environment() == {"TOKENIZERS_PARALLELISM": "false"}

    @linux
    def test_torch_lends_its_blas_without_being_imported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HARNESS_BLAS", "torch")
        imported = "torch" in sys.modules
        kind, library, sentence = machine.blas_choice()
        assert kind == "torch" and library is not None and library.name == "libtorch_cpu.so"
        assert library.name in sentence
        assert ("torch" in sys.modules) == imported
        assert machine.worker_environment()["LD_PRELOAD"] == str(library)

    @linux
    def test_what_is_preloaded_already_stays_in_front(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library = machine.blas_choice()[1]
        assert library is not None
        monkeypatch.setenv("LD_PRELOAD", f"/a.so {library}:/b.so")
        assert machine.worker_environment()["LD_PRELOAD"] == f"/a.so:/b.so:{library}"

    @linux
    def test_openblas_goes_before_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        exporting = machine._torch_libraries()[0]  # any library that loads and has sgemm_
        monkeypatch.setitem(machine._FINDERS, "openblas", (lambda: [exporting], "OpenBLAS"))
        assert machine.blas_choice()[:2] == ("openblas", exporting)
        assert machine.blas_choice("torch")[0] == "torch"

    def test_openblas_is_looked_for_where_debian_puts_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(machine, "LIBRARIES", tmp_path)
        assert machine._openblas_libraries() == []
        files = [
            tmp_path / "aarch64-linux-gnu" / flavour / "libblas.so.3"
            for flavour in ("openblas-pthread", "openblas-openmp")
        ]
        for file in reversed(files):
            file.parent.mkdir(parents=True)
            file.touch()
        assert machine._openblas_libraries() == files

    @linux
    def test_library_that_does_not_load_is_passed_over(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        folder = tmp_path / "x86_64-linux-gnu" / "openblas-openmp"
        folder.mkdir(parents=True)
        (folder / "libblas.so.3").write_bytes(b"\x7fELF, but not really")
        monkeypatch.setattr(machine, "LIBRARIES", tmp_path)
        assert machine.blas_choice()[0] == "torch"
        with pytest.raises(UsageError, match="no such library loads"):
            machine.blas_choice("openblas")

    @linux
    def test_library_without_blas_is_not_one(self) -> None:
        torch = machine._torch_libraries()[0]
        assert machine.exports_blas(torch)
        assert not machine.exports_blas(torch.with_name("libc10.so"))
        assert not machine.exports_blas(Path("/nowhere.so"))

    def test_other_systems_preload_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        kind, library, _ = machine.blas_choice()
        assert (kind, library) == ("accelerate", None)
        assert "LD_PRELOAD" not in machine.worker_environment()
