"""YAML that remembers where everything stood, so that an error can name line and column.

Hostile input is refused before it costs anything: large files, deep nesting, aliases that
expand to millions of nodes, aliases that contain themselves, duplicate keys.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from harness.errors import UsageError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Nodes after every alias is expanded."""

Location = tuple[int | str, ...]
"""Path into the document as pydantic writes it, e.g. ("candidates", 3, "licence")."""


class MarkedYaml:
    """A parsed document (`data`) and the place of every key in it."""

    def __init__(self, path: Path, root: yaml.Node, data: Any) -> None:
        self.path = path
        self.data = data
        self._root = root

    def where(self, location: Sequence[int | str], *, key: bool = False) -> str:
        """ "FILE:LINE:COLUMN" of a value, or of its key; lines and columns count from 1.

        Parts of `location` that are not in the document (the tag of a union, a missing key)
        are skipped, so that the innermost thing that exists is named.
        """
        mark = self._root.start_mark
        node = self._root
        for part in location:
            found = _child(node, part)
            if found is None:
                continue
            key_node, node = found
            mark = key_node.start_mark if key and key_node is not None else node.start_mark
        return _where(self.path, mark)


def load_marked_yaml(path: Path, error: type[UsageError]) -> MarkedYaml:
    """Read one YAML document from `path`.

    Raises:
        error: the file cannot be read, is not YAML, or is too large, deep or recursive.
    """
    text = _read(path, error)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise error(f"{path} is empty; delete it or give it some content.")
        return MarkedYaml(path, root, loader.construct_document(root))
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        raise error(
            f"{path}:{line}: the character U+{ord(text[problem.position]):04X} is not allowed "
            "in YAML; delete it."
        ) from problem
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = _where(path, mark) if mark else str(path)
        cause = ", ".join(part for part in (problem.context, problem.problem) if part)
        raise error(f"{place}: the YAML cannot be read: {cause}.") from problem


def _read(path: Path, error: type[UsageError]) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise error(f"{path} is a folder; name the YAML file itself.")
        if not stat.S_ISREG(mode):
            raise error(f"{path} is not a regular file; name a YAML file.")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise error(f"{path} does not exist; check the path.") from None
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the path
        raise error(f"{str(path)!r} cannot be read: {problem}.") from problem
    if len(raw) > MAX_BYTES:
        raise error(f"{path} is larger than {MAX_BYTES // 1000} kB, so it is not read.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise error(
            f"{path}:{line}: byte 0x{raw[problem.start]:02x} is not UTF-8 text; "
            "save the file as UTF-8 YAML."
        ) from problem


def _where(path: Path, mark: yaml.Mark) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}"


def _child(node: yaml.Node, part: int | str) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == str(part):
                return key_node, value_node
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None


class _Loader(yaml.SafeLoader):
    """SafeLoader that measures every node as it is composed and refuses duplicate keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open_nodes = 0
        # By id of a finished node: how many nodes it expands to, and how deep it is.
        self._size: dict[int, int] = {}
        self._depth: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if self._open_nodes >= MAX_DEPTH:
            raise ConstructorError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        self._open_nodes += 1
        node = super().compose_node(parent, index)
        self._open_nodes -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._size:
                raise ConstructorError(None, None, "an alias contains itself", mark)
        elif node is not None:
            self._measure(node, mark)
        return node

    def _measure(self, node: yaml.Node, mark: Any) -> None:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            _refuse_duplicate_keys(node)
            children = [child for pair in node.value for child in pair]
        self._size[id(node)] = 1 + sum(self._size[id(child)] for child in children)
        self._depth[id(node)] = 1 + max((self._depth[id(child)] for child in children), default=0)
        if self._size[id(node)] > MAX_NODES:
            raise ConstructorError(None, None, f"expands to more than {MAX_NODES} values", mark)
        if self._depth[id(node)] > MAX_DEPTH:
            raise ConstructorError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as problem:
            # PyYAML lets these escape from scalars such as 2025-13-45 or "!!int ''".
            text = f"{_shown(node)} is not a valid {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, text, node.start_mark) from problem


# YAML 1.1 as PyYAML reads it takes 5e-6 for text; YAML 1.2 and everyone else for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _refuse_duplicate_keys(node: yaml.MappingNode) -> None:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
            continue
        spelling = (key.tag, key.value)
        if spelling in first:
            text = f"the key {_shown(key)} was already given on line {first[spelling]}"
            raise ConstructorError(None, None, text, key.start_mark)
        first[spelling] = key.start_mark.line + 1


def _shown(node: yaml.Node) -> str:
    return repr(node.value[:60]) if isinstance(node, yaml.ScalarNode) else "a list or mapping"
