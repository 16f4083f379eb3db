"""The doctor: every finding on this machine, and the findings of a broken one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import doctor, machine
from harness.doctor import Check

linux = pytest.mark.skipif(sys.platform != "linux", reason="preloading is done on Linux only")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_BLAS", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    machine._choose_blas.cache_clear()


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Check]:
    """One whole examination, with an empty cache."""
    place = tmp_path_factory.mktemp("doctor")
    found = doctor.examine(reports_dir=place / "reports", cache_dir=place / "cache")
    assert list(place.iterdir()) == []  # it only looks
    return by_name(found)


@pytest.mark.real
class TestExamine:
    def test_engines_are_here(self, checks: dict[str, Check]) -> None:
        for name in doctor.MODULES:
            assert checks[name].ok is True, checks[name]
            assert checks[name].found[0].isdigit()

    def test_what_is_not_ok_has_a_cost_and_a_fix(self, checks: dict[str, Check]) -> None:
        for check in checks.values():
            assert check.found
            if check.ok is False:
                assert check.fix and check.cost

    def test_empty_cache_is_no_fault(self, checks: dict[str, Check]) -> None:
        assert checks["smollm2-135m-instruct"].ok is None
        assert checks["GGUF converter"].ok is None

    @linux
    def test_blas_is_measured_both_ways(self, checks: dict[str, Check]) -> None:
        assert checks["BLAS"].ok is True
        assert "GFLOP/s" in checks["BLAS"].found and "× as long" in checks["BLAS"].cost


@pytest.mark.real
@linux
class TestBlas:
    def test_a_matmul_is_measured_with_and_without_the_library(self) -> None:
        library = machine.blas_choice()[1]
        for preloaded in (None, library):
            gflops = doctor.measure_matmul(preloaded, n=64, seconds=0.01)
            assert gflops is not None and gflops > 0

    @pytest.mark.skipif(sys.platform != "linux", reason="nothing is preloaded elsewhere")
    def test_the_preloaded_library_is_the_one_that_multiplies(self) -> None:
        # How much faster that is, is for the doctor to measure: a busy machine tells no speeds.
        library = machine.blas_choice()[1]
        assert library is not None
        ask = (
            "import ctypes\n"
            "class Info(ctypes.Structure):\n"
            "    _fields_ = [('file', ctypes.c_char_p), ('base', ctypes.c_void_p),\n"
            "                ('name', ctypes.c_char_p), ('at', ctypes.c_void_p)]\n"
            "import mlx.core\n"
            "all = ctypes.CDLL(None)\n"
            "all.dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(Info)]\n"
            "info = Info()\n"
            "all.dladdr(ctypes.cast(all.sgemm_, ctypes.c_void_p), ctypes.byref(info))\n"
            "print(info.file.decode())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", ask],
            env={**os.environ, **machine.worker_environment()},
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(done.stdout.strip()).resolve() == library.resolve()

    def test_doing_without_is_a_finding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HARNESS_BLAS", "none")
        check = doctor.check_blas()
        assert check.ok is False
        assert check.fix == "unset HARNESS_BLAS"
        assert "would do" in check.found and "× as long as they need to" in check.cost

    def test_having_none_is_a_finding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "_FINDERS", {})
        check = doctor.check_blas()
        assert check.ok is False
        assert check.fix is not None and "pip install" in check.fix and "torch" in check.fix


class TestFindings:
    def test_unknown_blas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HARNESS_BLAS", "atlas")
        check = doctor.check_blas()
        assert check.ok is False and check.fix == "unset HARNESS_BLAS"

    def test_import_that_fails_crashes_or_works(self) -> None:
        assert doctor.import_problem("json") is None
        assert doctor.import_problem("no_such_module_here") == (
            "ModuleNotFoundError: No module named 'no_such_module_here'"
        )
        crash = doctor.import_problem("os; os.kill(os.getpid(), 4)")
        assert crash == "the process was killed by SIGILL"

    def test_file_of_the_same_name_is_not_imported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "colorsys.py").write_text("raise SystemExit('mine')")
        monkeypatch.chdir(tmp_path)
        assert doctor.import_problem("colorsys") is None

    def test_package_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(doctor.MODULES, "no-such-package", "no_such_package")
        monkeypatch.setitem(doctor.COSTS, "no-such-package", "nothing")
        check = doctor.check_import("no-such-package")
        assert (check.ok, check.found) == (False, "not installed")
        assert check.fix == "python -m pip install no-such-package"

    def test_broken_registry_is_a_finding(self, tmp_path: Path) -> None:
        registry = tmp_path / "registry.yaml"
        registry.write_text("candidates: 3\n")
        (check,) = doctor.check_registry(tmp_path, registry)
        assert check.ok is False and "registry.yaml:1:13" in check.found

    def test_cached_embedded_model_is_seen(self, tmp_path: Path) -> None:
        folder = tmp_path / "models" / "smollm2-135m-instruct"
        folder.mkdir(parents=True)
        (folder / doctor.MANIFEST).write_text("{}")
        checks = by_name(tuple(doctor.check_registry(tmp_path, None)))
        assert checks["registry"].ok is True
        assert checks["smollm2-135m-instruct"].ok is True

    def test_converter_must_be_of_the_installed_release(self, tmp_path: Path) -> None:
        version = machine.package_versions()["llama-cpp-python"]
        for release, ok in (("0.0.1", None), (version, True)):
            folder = tmp_path / "converter" / release
            folder.mkdir(parents=True)
            (folder / "convert_hf_to_gguf.py").touch()
            assert doctor.check_converter(tmp_path).ok is ok

    def test_offline_hub(self) -> None:
        check = doctor.check_hub()
        assert check.ok is None and "HF_HUB_OFFLINE is set" in check.found
        assert check.fix is not None and check.fix.startswith("unset HF_HUB_OFFLINE")

    def test_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        check = doctor.check_folder("output", tmp_path / "file" / "reports", 0.1, "give X")
        assert check.ok is False
        assert "cannot be written to" in check.found and check.fix is not None

    def test_full_disk(self, tmp_path: Path) -> None:
        check = doctor.check_folder("output", tmp_path, 1e9, "give X")
        assert check.ok is False and check.fix is not None and check.fix.startswith("give X")

    def test_folder_that_does_not_exist_yet(self, tmp_path: Path) -> None:
        check = doctor.check_folder("output", tmp_path / "a" / "b", 0.0, "give X")
        assert check.ok is True
        assert not (tmp_path / "a").exists()

    def test_little_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "memory_gb", lambda: 4.0)
        check = doctor.check_memory()
        assert check.ok is False and check.fix is not None
