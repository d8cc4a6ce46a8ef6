"""Chat templates are rendered in a process of their own before they are let in, and stopped where they go too far."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from registry import render_templates, template_sandbox
from registry.errors import FileRefused, RegistryError
from registry.folder_scan import check_templates
from registry.template_sandbox import templates_in

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SOUND = {
    "chatml": CHATML,
    "generation tag": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "break, namespace and filters": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if ns.n > 2 %}{% break %}"
        "{% endif %}{{ m | tojson(indent=2) }}{% endfor %}{{ strftime_now('%Y') }}{{ bos_token }}"
    ),
    "no system role": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ messages[0].content }}"
    ),
    "tools": "{% if tools is not none %}{{ tools | tojson }}{% endif %}{{ messages[-1]['content'] }}",
}
HOSTILE = {
    "attributes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "reaches out of its sandbox"),
    "globals": ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "reaches out of its sandbox"),
    "attributes by filter": ("{{ (messages | attr('__class__')).mro() }}", "reaches out of its sandbox.*__class__"),
    "changes the conversation": ("{{ messages.append({'role': 'user', 'content': 'x'}) }}", "reaches out"),
    "long text": ("{{ 'x' * 300000 }}", "more than 200000 characters"),
    "long text in pieces": ("{% for i in range(9999) %}{{ 'x' * 100 }}{% endfor %}", "more than 200000 characters"),
    "memory": ("{{ 'x' * 10 ** 10 }}", "takes more than it may"),
    "large range": ("{% for i in range(10 ** 9) %}{% endfor %}", "takes more than it may"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "takes more than it may"),
    "other files": ("{% include '/etc/passwd' %}", "renders no conversation"),
    "no Jinja": ("{% for m in messages %}", "is not valid Jinja"),
    "nothing but refusals": ("{{ raise_exception('no') }}", "renders no conversation"),
}


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND)
def test_an_ordinary_template_is_let_in(text: str) -> None:
    check_templates({"chat_template.jinja": text})


@pytest.mark.parametrize(("text", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_refused_and_named(text: str, problem: str) -> None:
    with pytest.raises(FileRefused, match=problem) as caught:
        check_templates({"sound": CHATML, "chat_template.jinja": text})
    assert "chat_template.jinja" in caught.value.problem


@pytest.mark.parametrize(
    "text",
    ["{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "{{ 9 ** (9 ** 9) }}"],
    ids=["loops", "one large power"],
)
def test_a_template_that_never_ends_is_stopped(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "CPU_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(FileRefused, match="processor time"):
        check_templates({"chat_template.jinja": text})
    assert time.monotonic() - started < 30


def test_a_process_that_gets_no_processor_is_stopped_and_says_nothing_of_the_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(template_sandbox, "WALL_SECONDS", 0.05)
    with pytest.raises(RegistryError, match=r"wasn't done after 0.05 s") as caught:
        check_templates(
            {"chat_template.jinja": "{% for i in range(99999) %}{% for j in range(999) %}{% endfor %}{% endfor %}"}
        )
    assert not isinstance(caught.value, FileRefused)


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_somebody_ends_says_nothing_of_the_template(
    ended_by: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = tmp_path / "child.py"
    child.write_text(f"import os; os.kill(os.getpid(), {int(ended_by)})")
    monkeypatch.setattr(template_sandbox, "CHILD", child)
    with pytest.raises(RegistryError, match=f"ended by signal {int(ended_by)}") as caught:
        check_templates({"chat_template.jinja": CHATML})
    assert not isinstance(caught.value, FileRefused)


def test_no_folder_for_temporary_files_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    with pytest.raises(RegistryError, match="can't be started: No usable temporary directory"):
        check_templates({"chat_template.jinja": CHATML})


def test_jinja2_is_found_where_an_isolated_python_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run
    # without site-packages, as where jinja2 comes by PYTHONPATH, --target or from the user's packages
    monkeypatch.setattr(subprocess, "run", lambda command, **more: run([command[0], "-S", *command[1:]], **more))
    check_templates({"chat_template.jinja": CHATML})
    monkeypatch.setattr(template_sandbox, "CHILD_NEEDS", ())
    with pytest.raises(RegistryError, match="No module named 'jinja2'"):
        check_templates({"chat_template.jinja": CHATML})


RAG = "{% for one in documents %}{% for key, value in one.items() %}{{ key }}: {{ value }}{% endfor %}{% endfor %}"
PARTS = "{% for message in messages %}{{ message.content[0].text + '!' }}{% endfor %}"
REFUSES = "{{ raise_exception('only with a plan') }}"


@pytest.mark.parametrize("text", [RAG, PARTS], ids=["documents", "content in parts"])
def test_a_default_template_may_want_documents_or_content_in_parts(text: str) -> None:
    check_templates({"chat_template.jinja": text})


def test_only_the_default_template_has_to_render_something() -> None:
    named = [{"name": "default", "template": CHATML}, {"name": "rag", "template": REFUSES}]
    check_templates(
        {
            **templates_in("tokenizer_config.json", json.dumps({"chat_template": named})),
            **templates_in("additional_chat_templates/rag.jinja", REFUSES),
            **templates_in("chat_template.json", json.dumps({"chat_template": REFUSES})),
        }
    )
    named[0]["template"] = REFUSES
    for name, document in (
        ("tokenizer_config.json", named),
        (
            "Tokenizer_Config.json",
            [*named, {"name": "x" * 90 + "1", "template": "a"}, {"name": "x" * 90, "template": "b"}],
        ),
        ("tokenizer_config.json", {"default": REFUSES}),
        ("tokenizer_config.json", REFUSES),
    ):
        with pytest.raises(FileRefused, match="renders no conversation: Raised: only with a plan"):
            check_templates(templates_in(name, json.dumps({"chat_template": document})))
    # whatever else a template may be refused for holds for all
    with pytest.raises(FileRefused, match="is not valid Jinja"):
        check_templates(templates_in("additional_chat_templates/rag.jinja", "{% if %}"))


def test_every_place_of_a_template_is_looked_at() -> None:
    named = [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]
    assert templates_in("chat_template.jinja", "text") == {"chat_template.jinja": "text"}
    assert templates_in("additional_chat_templates/x.jinja", "t") == {"additional_chat_templates/x.jinja": "t"}
    assert templates_in("tokenizer_config.json", json.dumps({"chat_template": "one"})) == {
        "tokenizer_config.json": "one"
    }
    found = templates_in("tokenizer_config.json", json.dumps({"chat_template": named}))
    assert list(found.values()) == ["one", "two"]
    assert "'tool_use'" in list(found)[1]
    assert templates_in("chat_template.json", json.dumps({"chat_template": {"a": "one"}})).popitem()[1] == "one"
    assert templates_in("config.json", json.dumps({"chat_template": "one"})) == {}
    assert templates_in("tokenizer_config.json", "[]") == {}
    # a file system may ignore case, and gives the file to whoever asks for the usual name
    assert templates_in("CHAT_TEMPLATE.JINJA", "text") == {"CHAT_TEMPLATE.JINJA": "text"}
    assert list(templates_in("Tokenizer_Config.JSON", json.dumps({"chat_template": "one"})).values()) == ["one"]


def test_a_message_is_short_and_moves_no_cursor() -> None:
    with pytest.raises(FileRefused, match="is not valid Jinja") as caught:
        check_templates({"chat_template.jinja": "{% " + "a" * 900_000 + " %}"})
    assert len(caught.value.problem) < 400
    with pytest.raises(FileRefused, match=r"\?\]0;x") as caught:
        check_templates({"chat_template.jinja": "{{ raise_exception('\x1b]0;x') }}"})
    assert caught.value.problem.isprintable()


def test_templates_have_bounds_by_themselves_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_TEMPLATES", 2)
    with pytest.raises(FileRefused, match="one chat template more than 2"):
        check_templates(dict.fromkeys("abc", CHATML))
    monkeypatch.setattr(template_sandbox, "MAX_BYTES_TOGETHER", len(CHATML) + 1)
    with pytest.raises(FileRefused, match="'b' brings all chat templates together"):
        check_templates(dict.fromkeys("ab", CHATML))
    names = ["x" * 90 + "1", "x" * 90 + "2"]
    named = [{"name": name, "template": name} for name in names]
    found = templates_in("tokenizer_config.json", json.dumps({"chat_template": named}))
    assert list(found.values()) == names
    assert max(map(len, found)) < 130


def test_the_child_has_limits_before_it_reads_and_none_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spy = tmp_path / "spy.py"
    spy.write_text("import json, os, sys; sys.exit(json.dumps([sys.argv[1:], dict(os.environ)]))")
    monkeypatch.setattr(template_sandbox, "CHILD", spy)
    monkeypatch.setenv("TUNEWRIGHT_KEY_PASSWORD", "hunter2")
    monkeypatch.setenv("TUNEWRIGHT_REGISTRY_DATABASE", "postgresql://me:hunter2@host/x")
    with pytest.raises(RegistryError, match=r'\["3", "536870912", "200000", ') as caught:
        check_templates({"chat_template.jinja": CHATML})
    assert "hunter2" not in str(caught.value)
    # more than the memory that it may take: refused while it is read
    done = subprocess.run(
        [sys.executable, "-I", str(render_templates.__file__), "3", str(80 << 20), "1000"],
        input=b'{"a": "' + b"x" * (100 << 20) + b'"}',
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert b"MemoryError" in done.stderr
