"""The child process of `template_sandbox.py`: render chat templates under limits, and say what became of each.

Run as a script: its arguments are the limits (seconds of processor time, bytes of memory, characters of output), then
the folders that jinja2 and what it needs lie in; its standard input the templates as JSON, {label: text}.
Answers {label: {"refused": reason} or {"rendered": number, "errors": [...]}} on standard output.
jinja2's sandbox keeps a template from Python's attributes; what it doesn't limit, time, memory and output, the
operating system and the count below do. Environment and names are those that transformers gives a chat template.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

if __name__ == "__main__":
    # An isolated Python searches neither PYTHONPATH nor the user's packages. Behind all others, since such a folder may
    # hold anything, and shall hide nothing of Python's own.
    sys.path += sys.argv[4:]

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

USER, ASSISTANT = {"role": "user", "content": "ping"}, {"role": "assistant", "content": "pong"}
SYSTEM = {"role": "system", "content": "Answer."}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
DOCUMENT = {"title": "Words", "text": "A ping is answered by a pong."}
# as vision models' templates read what is said
USER_IN_PARTS = {"role": "user", "content": [{"type": "text", "text": "ping"}]}
MESSAGE_CHARACTERS = 200
# messages, whether the assistant is asked to go on, tools, and documents to answer from
CONVERSATIONS: tuple[
    tuple[list[dict[str, Any]], bool, list[dict[str, Any]] | None, list[dict[str, str]] | None], ...
] = (
    ([USER], True, None, None),
    ([SYSTEM, USER], True, None, None),
    ([SYSTEM, USER, ASSISTANT, USER], True, None, None),
    ([USER, ASSISTANT], False, None, None),
    ([SYSTEM, USER], True, [TOOL], None),
    ([USER], True, None, [DOCUMENT]),
    ([USER_IN_PARTS], True, None, None),
)


class Generation(Extension):
    """The one tag that chat templates add to Jinja: it marks what the assistant says, and renders it as it is."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Any) -> Any:
        """Read `{% generation %}…{% endgeneration %}`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


class Raised(Exception):  # noqa: N818  (a template's own refusal is no error of this program)
    """A template refused a conversation by `raise_exception`."""


def raise_exception(message: object) -> None:
    """Refuse a conversation, as templates do where a role has no place."""
    raise Raised(shown(message))


def environment() -> ImmutableSandboxedEnvironment:
    """Return what a chat template runs in."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = lambda value, indent=None, **_: json.dumps(value, ensure_ascii=False, indent=indent)
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: f"<{form}>"
    return made


def shown(message: object) -> str:
    """Return a message as it may be shown: not longer than a few lines, without what moves a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(message)[:MESSAGE_CHARACTERS])


def judge(text: str, limit: int) -> dict[str, Any]:
    """Render one template for every conversation.

    Args:
        text: The template.
        limit: Most characters that all of it may render.

    Returns:
        `refused` with a reason, or `rendered` with how many conversations it took and `errors` of the others.
    """
    try:
        template = environment().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        return {"refused": f"is not valid Jinja: {shown(error.message)} (line {error.lineno})"}
    except (RecursionError, MemoryError, OverflowError) as error:
        return {"refused": f"can't be read within the limits ({type(error).__name__})"}
    left, errors = limit, []
    for messages, prompt, tools, documents in CONVERSATIONS:
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        try:
            for piece in template.generate(
                messages=messages, tools=tools, documents=documents, add_generation_prompt=prompt, **names
            ):
                left -= len(piece)
                if left < 0:
                    return {"refused": f"renders more than {limit} characters for a few short messages"}
        except SecurityError as error:
            return {"refused": f"reaches out of its sandbox: {shown(error)}"}
        except (RecursionError, MemoryError, OverflowError) as error:
            return {"refused": f"takes more than it may ({type(error).__name__}: {shown(error)})"}
        except Exception as error:  # a template may fail in any way for a conversation that it has no form for
            errors.append(shown(f"{type(error).__name__}: {error}"))
    return {"rendered": len(CONVERSATIONS) - len(errors), "errors": errors}


def main() -> None:
    """Set the limits, then read the templates and answer."""
    seconds, memory, characters = map(int, sys.argv[1:4])
    # jinja2 is loaded by now; from here on nothing has to be opened, started or written but the answer
    # with both limits alike Linux sends SIGKILL, which tells nothing of who sent it
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    found = {label: judge(text, characters) for label, text in json.load(sys.stdin).items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
