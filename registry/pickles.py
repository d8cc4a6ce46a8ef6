"""Whether bytes would run something if a loader took them for a pickle, told by walking its opcodes; never run.

`registry` and `components.models` each have this module, since neither may import the other; a test holds both to one
text. What arguments say is read more leniently than pickletools does (a hexadecimal INT is one to pickle, and an
error to pickletools), what is on the stack is followed more exactly: plain text ends the walk after a few bytes.
"""

from __future__ import annotations

import pickletools
import re

__all__ = ["runs_something"]

# A file that is a valid pickle for so long is one, whatever else it may be.
MAX_OPCODES = 1_000_000
OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
# What is on the stack: a mark, something imported, a tuple, anything that may be either, or anything else.
MARK, IMPORTED, TUPLE, UNKNOWN, OTHER = "mark", "imported", "tuple", "unknown", "other"
# pickletools' names for how an argument's length is told: fixed, by a line's end, by the first byte or bytes of it.
LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
# Lines that the unpickler refuses, so that nothing behind them is reached.
LINES = {
    # C reads a number up to a zero byte
    "INT": re.compile(rb"\s*[+-]?[0-9a-fA-FxXoO_]+\s*(\0.*)?"),
    "LONG": re.compile(rb"\s*[+-]?[0-9a-fA-FxXoO_]+L?\s*(\0.*)?"),
    "FLOAT": re.compile(rb"\s*[+-]?([0-9.]|inf|nan).*", re.IGNORECASE),
    "STRING": re.compile(rb"""\s*(".*"|'.*')\s*"""),
    "GET": re.compile(rb"\s*[+-]?[0-9_]+\s*(\0.*)?"),
    "PUT": re.compile(rb"\s*[+-]?[0-9_]+\s*(\0.*)?"),
}
TO_MARK = frozenset({"APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK", "TUPLE", "LIST", "DICT", "FROZENSET"})
# How many items each takes that is looked at here, and what it leaves in their place.
CALLS = {"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "BUILD": 2}
IMPORTS = {"STACK_GLOBAL": 2, "EXT1": 0, "EXT2": 0, "EXT4": 0}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
CHANGES = {"APPEND": 1, "SETITEM": 2}  # taken from above the list or mapping that they change


class _NoPickle(Exception):  # noqa: N818  (an answer, no failure)
    """The unpickler would stop here with an error."""


def runs_something(content: bytes) -> bool:
    """Say whether unpickling would import something and end, or call what it imported, whether it ends or not.

    Args:
        content: The file. Pickles that follow each other are all looked at: torch's oldest format has several.

    Returns:
        Whether a loader that takes it for a pickle could be made to run code by it.
    """
    at = opcodes = 0
    memo = False  # whether anything was put where GET finds it
    try:
        while at < len(content):
            stack: list[str] = []
            imported = False
            while True:
                opcode = OPCODES.get(content[at]) if at < len(content) else None
                if opcode is None:
                    return False
                opcodes += 1
                if opcodes > MAX_OPCODES:
                    return True
                begin = at + 1
                at = _behind(content, begin, opcode)
                if opcode.name == "STOP":
                    if imported and stack:
                        return True
                    if not stack:
                        return False
                    break
                if opcode.name in GETS and not memo:
                    return False
                memo = memo or opcode.name in PUTS
                if opcode.name == "GLOBAL" and not _is_name(content[begin:at]):
                    return False
                if _calls(opcode.name, content[begin:at], stack, imported):
                    return True
                imported = imported or opcode.name == "GLOBAL" or opcode.name in IMPORTS
                _step(opcode, stack)
    except _NoPickle:
        return False
    return False


def _behind(content: bytes, begin: int, opcode: pickletools.OpcodeInfo) -> int:
    """Return where an opcode's argument ends."""
    if opcode.arg is None:
        return begin
    length = opcode.arg.n
    if length == pickletools.UP_TO_NEWLINE:
        end = begin
        for _ in range(2 if opcode.name in {"GLOBAL", "INST"} else 1):
            end = content.find(b"\n", end) + 1
            if end == 0:
                raise _NoPickle
        expected = LINES.get(opcode.name)
        if expected is not None and not expected.fullmatch(content[begin : end - 1]):
            raise _NoPickle
        return end
    if length in LENGTH_BYTES:
        width = LENGTH_BYTES[length]
        length = width + int.from_bytes(content[begin : begin + width], "little")
    if begin + length > len(content):
        raise _NoPickle
    return begin + length


def _is_name(argument: bytes) -> bool:
    """Say whether GLOBAL's or INST's two lines could name something that there is to import."""
    try:
        module, name, _ = argument.decode().split("\n")
    except ValueError:
        return False
    return all(part.isidentifier() for part in (*module.replace("-", "_").split("."), *name.split(".")))


def _calls(name: str, argument: bytes, stack: list[str], imported: bool) -> bool:
    """Say whether an opcode calls something that was imported, or imports and calls at once."""
    if name not in CALLS and name not in {"INST", "OBJ"}:
        return False
    # nothing that isn't imported can be called
    if not imported and name not in {"INST", "BUILD"}:
        raise _NoPickle
    if name in {"INST", "OBJ"}:
        if MARK not in stack or (name == "OBJ" and stack[-1] == MARK) or (name == "INST" and not _is_name(argument)):
            raise _NoPickle
        return True
    wanted = CALLS[name]
    items = stack[-wanted:]
    if len(items) < wanted or MARK in items:
        raise _NoPickle
    if name == "BUILD":
        return imported and items[0] in {IMPORTED, UNKNOWN}
    if name in {"REDUCE", "NEWOBJ"} and items[1] not in {TUPLE, UNKNOWN}:
        raise _NoPickle
    return imported


def _step(opcode: pickletools.OpcodeInfo, stack: list[str]) -> None:
    """Do to the stack what an opcode does that calls nothing."""
    name = opcode.name
    if name in TO_MARK:
        while stack and stack[-1] != MARK:
            stack.pop()
        _take(stack, 1)
        if name in {"APPENDS", "SETITEMS", "ADDITEMS"}:
            _look(stack)
        elif name != "POP_MARK":
            stack.append(TUPLE if name == "TUPLE" else OTHER)
    elif name == "MARK":
        stack.append(MARK)
    elif name == "POP":
        _take(stack, 1)
    elif name == "DUP":
        stack.append(_look(stack))
    elif name in CHANGES:
        _take(stack, CHANGES[name])
        _look(stack)
    elif name in CALLS:
        _take(stack, CALLS[name])
        stack.append(UNKNOWN)
    elif name == "GLOBAL" or name in IMPORTS:
        _take(stack, IMPORTS.get(name, 0))
        stack.append(IMPORTED)
    elif name in TUPLES:
        _take(stack, TUPLES[name])
        stack.append(TUPLE)
    elif name in PUTS or name == "READONLY_BUFFER":
        _look(stack)
    elif name in GETS or name == "PERSID":
        stack.append(UNKNOWN)
    elif name == "BINPERSID":
        _take(stack, 1)
        stack.append(UNKNOWN)
    elif opcode.stack_after:
        stack.append(OTHER)


def _look(stack: list[str]) -> str:
    if not stack:
        raise _NoPickle
    return stack[-1]


def _take(stack: list[str], count: int) -> None:
    if len(stack) < count:
        raise _NoPickle
    del stack[len(stack) - count :]
