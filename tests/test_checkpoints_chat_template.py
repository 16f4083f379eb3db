from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoint_files import TEMPLATE, write_json

from harness.checkpoints import chat_render, chat_template
from harness.checkpoints.chat_template import check_chat_template, find_template
from harness.errors import ModelError

ECHO = "{{ messages[0]['content'] }}"


def write(folder: Path, template: object, **config: object) -> Path:
    write_json(folder / "tokenizer_config.json", {"chat_template": template} | config)
    return folder


def test_a_good_template_is_rendered_with_its_tokens(tmp_path: Path) -> None:
    write(tmp_path, "{{ bos_token }}{{ eos_token }}" + TEMPLATE, bos_token={"content": "<s>"})
    write_json(tmp_path / "special_tokens_map.json", {"eos_token": "</s>", "bos_token": "no"})
    assert check_chat_template(tmp_path) == "<s></s><user>Which city is the capital of Japan?"


def test_what_real_templates_use_works(tmp_path: Path) -> None:
    write(
        tmp_path,
        "{% generation %}{{ strftime_now('%Y') | length }}{% endgeneration %}"
        "{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ {'é<': i} | tojson }}"
        "{% endfor %}\n  {% if tools is none and add_generation_prompt %}\nyes{% endif %}" + ECHO,
    )
    rendered = check_chat_template(tmp_path)
    assert rendered == '4{"é<": 1}yesWhich city is the capital of Japan?'


def test_where_templates_are_looked_for(tmp_path: Path) -> None:
    assert find_template(tmp_path) is None
    assert check_chat_template(tmp_path) is None
    write(tmp_path, [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}])
    assert find_template(tmp_path) == "d"
    write(tmp_path, "from config")
    assert find_template(tmp_path) == "from config"
    (tmp_path / "chat_template.jinja").write_text("from file")
    assert find_template(tmp_path) == "from file"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ 'a' * 10**10 }}" + ECHO, "more than 1 GB of memory"),
        (
            "{% set n = namespace(x='aaaaaaaaaa') %}{% for i in range(99) %}"
            "{% set n.x = n.x ~ n.x %}{% endfor %}" + ECHO,
            "more than 1 GB of memory",
        ),
        ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}" + ECHO, "million characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + ECHO, "recurses"),
        ("{{ ''.__class__.__mro__ }}" + ECHO, "outside its sandbox"),
        ("{{ lipsum.__globals__['os'].popen('touch pwned') }}" + ECHO, "outside its sandbox"),
        ("{{ messages.append(1) }}" + ECHO, "outside its sandbox"),
        ("{% for %}", "not valid Jinja (line 1"),
        ("{{ raise_exception('only\n\x1b[1mEnglish') }}", r"(only\n\x1b[1mEnglish)"),
        ("{{ messages[0].images.count }}" + ECHO, "fails on a plain one-turn conversation"),
        ("{% include '/etc/passwd' %}" + ECHO, "fails on a plain one-turn conversation"),
        ("{{ '\ud800' }}" + ECHO, "surrogates"),
        ("You are a helpful assistant.", "leaves out what the user says"),
        ("{# " + "x" * 1_000_000 + " #}" + ECHO, "longer than a million"),
        ({"a": 1}, "must be text, not a dict"),
    ],
)
def test_bad_templates_are_refused(
    tmp_path: Path, template: object, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "1 GB" in says and sys.platform == "darwin":
        pytest.skip("macOS does not enforce RLIMIT_AS")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        check_chat_template(write(tmp_path, template))
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_the_file_is_not_read_when_it_is_absurdly_long(tmp_path: Path) -> None:
    with (tmp_path / "chat_template.jinja").open("wb") as file:
        file.truncate(50 << 30)
    with pytest.raises(ModelError, match="longer than a million"):
        check_chat_template(tmp_path)


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")
def test_a_preloaded_blas_does_not_count(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).with_name("lib") / "libtorch_cpu.so"
    assert library.exists()
    code = (
        "import sys, pathlib; from harness.checkpoints.chat_template import check_chat_template; "
        "check_chat_template(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(write(tmp_path, TEMPLATE))],
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=True,
    )


LOOP = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}" + ECHO
)


def test_a_loop_ends_by_cpu_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "CPU_S", 1)
    with pytest.raises(ModelError, match="loops: it used more than 1 s of CPU"):
        check_chat_template(write(tmp_path, LOOP))


def test_a_loop_ends_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "WALL_S", 1)
    started = time.monotonic()
    with pytest.raises(ModelError, match="still rendering after 1 s"):
        check_chat_template(write(tmp_path, LOOP))
    assert time.monotonic() - started < 4


def test_the_child_imports_nothing_of_the_harness() -> None:
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); import jinja2.sandbox; "
        "print([m for m in sys.modules if m.split('.')[0] in ('harness', 'torch', 'mlx')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, chat_render.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.real
@pytest.mark.parametrize(
    "template",
    [
        TEMPLATE,
        "{%- for m in messages -%}\n  {%- if m.role == 'user' %}\n[INST] {{ m.content | trim }}"
        " [/INST]{%- endif %}\n{%- endfor %}\n{{ messages | tojson(indent=2) }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{{ ns.n }}: {{ m.content }}\n    {% if add_generation_prompt %}\nbot:{% endif %}\n"
        "{% endfor %}",
    ],
)
def test_it_renders_what_transformers_renders(tmp_path: Path, template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    conversation = [{"role": "user", "content": "Which city is the capital of Japan?"}]
    theirs, _ = render_jinja_template(
        conversations=[conversation], chat_template=template, add_generation_prompt=True
    )
    assert check_chat_template(write(tmp_path, template)) == theirs[0]
