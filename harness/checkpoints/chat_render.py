"""Child process: render one untrusted chat template under resource limits.

Run by path in isolated mode, so it imports nothing of the harness. stdin: JSON {template,
messages, variables, limits}. stdout: JSON {"text": …} or {"error": kind, "message": …}. The
environment follows the one that transformers renders chat templates in.
"""

import datetime
import json
import resource
import sys
from typing import Any

import jinja2
from jinja2 import ext, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(ext.Extension):
    """`{% generation %}` marks the assistant's tokens for training; here it just renders."""

    tags = {"generation"}  # noqa: RUF012 (the base class is not annotated as ClassVar)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def main() -> None:
    request = json.load(sys.stdin)
    environment = _environment()
    # Only now, so that the limits judge the template and not the imports.
    _limit(resource.RLIMIT_AS, request["limits"]["memory_bytes"])
    _limit(resource.RLIMIT_CPU, request["limits"]["cpu_s"])
    try:
        answer = _render(environment, request)
    except MemoryError:
        answer = {"error": "memory", "message": ""}
    except RecursionError:
        answer = {"error": "recursion", "message": ""}
    json.dump(answer, sys.stdout)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _render(environment: ImmutableSandboxedEnvironment, request: dict[str, Any]) -> dict[str, str]:
    pieces: list[str] = []
    length = 0
    try:
        template = environment.from_string(request["template"])
        for piece in template.generate(messages=request["messages"], **request["variables"]):
            length += len(piece)
            if length > request["limits"]["characters"]:
                return {"error": "length", "message": ""}
            pieces.append(piece)
        text = "".join(pieces)
        text.encode()  # half a surrogate pair cannot be tokenised
    except jinja2.TemplateSyntaxError as error:
        return {"error": "syntax", "message": f"line {error.lineno}: {error.message}"}
    except SecurityError as error:
        return {"error": "attack", "message": str(error)}
    except jinja2.UndefinedError as error:
        return {"error": "broken", "message": str(error)}
    except jinja2.TemplateError as error:
        return {"error": "refused", "message": str(error)}
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        UnicodeError,
        ValueError,
        NotImplementedError,
    ) as error:
        return {"error": "broken", "message": f"{type(error).__name__}: {error}"}
    return {"text": text}


def _limit(which: int, value: int) -> None:
    """Lower a limit where the system lets us (macOS refuses RLIMIT_AS)."""
    try:
        _, hard = resource.getrlimit(which)
        top = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (top, hard))
    except (OSError, ValueError):
        return


if __name__ == "__main__":
    main()
