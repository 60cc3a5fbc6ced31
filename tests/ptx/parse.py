"""Reads PTX as nvcc writes it: kernels and device functions, their parameters, shared arrays and statements.

Names of registers are made unique within a function, so that its statements need no scopes. What is not known here is a
PtxError with the file and the line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

BITS = {
    "pred": 1,
    **{kind + bits: int(bits) for kind in "bsuf" for bits in ("8", "16", "32", "64") if kind + bits != "f8"},
}

TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
    |(?P<number>0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|-?0[xX][0-9a-fA-F]+|-?\d+(\.\d+)?)
    |(?P<string>"[^"]*")
    |(?P<name>[.%$_a-zA-Z][\w$.]*(::[\w$.]+)*)
    |(?P<mark>[{}\[\]()<>;,:|!@+])""",
    re.VERBOSE,
)


class PtxError(ValueError):
    """PTX that is not understood."""


@dataclass(frozen=True)
class Register:
    """A register of the thread; `type` as it was declared, such as b32."""

    name: str
    type: str


@dataclass(frozen=True)
class Special:
    """A register that the machine sets, such as %tid.x."""

    name: str


@dataclass(frozen=True)
class Number:
    """The text of a constant."""

    text: str


@dataclass(frozen=True)
class Symbol:
    """The name of a parameter, a shared array, a label or a function."""

    name: str


@dataclass(frozen=True)
class Address:
    """[base + offset]"""

    base: Operand
    offset: int


@dataclass(frozen=True)
class Group:
    """{a, b} of a vector, (a, b) of a call, or a|b of a result with its predicate."""

    parts: tuple[Operand, ...]


Operand = Register | Special | Number | Symbol | Address | Group


@dataclass(frozen=True)
class Label:
    """A place to branch to."""

    line: int
    name: str


@dataclass(frozen=True)
class Instruction:
    """`guard` is its predicate, if any; `opcode` the name with all its suffixes, in parts."""

    line: int
    guard: Register | None
    guard_negated: bool
    opcode: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Variable:
    """A parameter or a shared array; size in bytes, zero where the launch says it."""

    name: str
    size: int
    alignment: int


@dataclass
class Function:
    """A kernel, or a device function that kernels call."""

    name: str
    line: int
    is_entry: bool
    results: list[Variable]
    parameters: list[Variable]
    max_threads: int = 1024
    registers: list[Register] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)  # parameters of its calls
    shared: list[Variable] = field(default_factory=list)
    local: list[Variable] = field(default_factory=list)
    body: list[Label | Instruction] = field(default_factory=list)


@dataclass
class Module:
    """A file of PTX."""

    path: str
    target: str
    shared: list[Variable]
    functions: list[Function]


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int


def tokens_of(text: str, path: str) -> list[Token]:
    """All tokens; one of the kind "end" is the last."""
    tokens, position, line = [], 0, 1
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise PtxError(f"{path}:{line}: unexpected {text[position]!r}")
        kind = str(match.lastgroup)
        if match.group("skip") is None:
            kind = next(name for name in ("number", "string", "name", "mark") if match.group(name) is not None)
            tokens.append(Token(kind, match.group(), line))
        line += match.group().count("\n")
        position = match.end()
    return [*tokens, Token("end", "the end of the file", line)]


class Parser:
    """Recursive descent over the tokens of one file."""

    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self.tokens = tokens_of(text, path)
        self.position = 0
        self.module = Module(path, "", [], [])
        self.scopes: list[dict[str, Register]] = []
        self.scope_count = 0
        self.variables: dict[str, str] = {}  # of calls: the name in the file, and the unique one

    # ---- tokens ----

    @property
    def next(self) -> Token:
        return self.tokens[self.position]

    def take(self, expected: str | None = None) -> str:
        token = self.next
        if expected is not None and token.text != expected:
            raise self.error(f"expected {expected!r}, found {token.text!r}")
        self.position += 1
        return token.text

    def accept(self, text: str) -> bool:
        if self.next.text != text:
            return False
        self.position += 1
        return True

    def number(self) -> int:
        return int(self.take(), 0)

    def error(self, what: str) -> PtxError:
        return PtxError(f"{self.path}:{self.next.line}: {what}")

    # ---- the file ----

    def parse(self) -> Module:
        linking = {".visible", ".extern", ".weak"}
        while self.next.kind != "end":
            if self.next.text in linking or self.accept(".version") or self.accept(".address_size"):
                self.take()
            elif self.accept(".target"):
                self.module.target = self.take()
            elif self.next.text in (".entry", ".func"):
                self.function()
            elif self.accept(".shared"):
                self.module.shared.append(self.variable())
            else:
                raise self.error(f"unknown directive {self.next.text!r}")
        return self.module

    def function(self) -> None:
        line, is_entry = self.next.line, self.take() == ".entry"
        results = self.parameters() if self.next.text == "(" else []
        made = Function(self.take(), line, is_entry, results, self.parameters() if self.next.text == "(" else [])
        while self.next.text not in ("{", ";"):
            directive = self.take()
            if directive in (".maxntid", ".reqntid"):
                made.max_threads = self.number()
                while self.accept(","):
                    made.max_threads *= self.number()
            elif directive in (".minnctapersm", ".maxnreg"):
                self.number()
            else:
                raise self.error(f"unknown directive {directive!r}")
        if self.accept(";"):
            return  # a declaration
        self.scopes, self.scope_count, self.variables = [], 0, {}
        self.block(made)
        self.module.functions.append(made)

    def parameters(self) -> list[Variable]:
        self.take("(")
        found = []
        while not self.accept(")"):
            self.take(".param")
            found.append(self.variable())
            self.accept(",")
        return found

    def variable(self) -> Variable:
        """What follows .param, .shared or .local: [.align n] .type name[size]."""
        alignment = self.number() if self.accept(".align") else 0
        kind = self.take().removeprefix(".")
        if kind not in BITS:
            raise self.error(f"unknown type {kind!r}")
        name, size = self.take(), BITS[kind] // 8
        alignment = alignment or size
        if self.accept("["):
            size *= 0 if self.next.text == "]" else self.number()
            self.take("]")
        if self.next.text not in (",", ")"):
            self.take(";")
        return Variable(name, size, alignment)

    # ---- the body of a function ----

    def block(self, to: Function) -> None:
        self.take("{")
        self.scopes.append({})
        self.scope_count += 1
        while not self.accept("}"):
            if self.next.text == "{":
                self.block(to)
            elif self.accept(".reg"):
                self.declare_registers(to)
            elif self.accept(".shared"):
                to.shared.append(self.variable())
            elif self.accept(".local"):
                to.local.append(self.variable())
            elif self.accept(".param"):
                self.declare_variable(to)
            elif self.accept(".pragma"):
                self.take()
                self.take(";")
            elif self.next.text.startswith("$") and self.tokens[self.position + 1].text == ":":
                to.body.append(Label(self.next.line, self.take()))
                self.take(":")
            else:
                to.body.append(self.instruction())
        self.scopes.pop()

    def declare_registers(self, to: Function) -> None:
        kind = self.take().removeprefix(".")
        if kind not in BITS:
            raise self.error(f"unknown type {kind!r}")
        while True:
            name = self.take()
            count = None
            if self.accept("<"):
                count = self.number()
                self.take(">")
            for full in [name] if count is None else [f"{name}{i}" for i in range(count)]:
                unique = re.sub(r"\W", "_", full.removeprefix("%")) + (
                    f"_{self.scope_count}" if len(self.scopes) > 1 else ""
                )
                self.scopes[-1][full] = Register(unique, kind)
                to.registers.append(self.scopes[-1][full])
            if not self.accept(","):
                break
        self.take(";")

    def declare_variable(self, to: Function) -> None:
        found = self.variable()
        unique = f"{found.name}_{self.scope_count}"
        self.variables[found.name] = unique
        to.variables.append(Variable(unique, found.size, found.alignment))

    def instruction(self) -> Instruction:
        line, guard, negated = self.next.line, None, False
        if self.accept("@"):
            negated = self.accept("!")
            register = self.operand()
            if not isinstance(register, Register):
                raise self.error("a predicate is a register")
            guard = register
        if self.next.kind != "name":
            raise self.error(f"expected an instruction, found {self.next.text!r}")
        opcode = self.take()
        operands = []
        while not self.accept(";"):
            operands.append(self.operand())
            if self.next.text != ";":
                self.take(",")
        return Instruction(line, guard, negated, opcode, tuple(operands))

    def operand(self) -> Operand:
        for start, end in (("{", "}"), ("(", ")")):
            if self.accept(start):
                parts = []
                while not self.accept(end):
                    parts.append(self.operand())
                    self.accept(",")
                return Group(tuple(parts))
        if self.accept("["):
            base = self.operand()
            offset = self.number() if self.accept("+") else 0
            self.take("]")
            return Address(base, offset)
        if self.next.kind == "number":
            return Number(self.take())
        if self.next.kind != "name":
            raise self.error(f"expected an operand, found {self.next.text!r}")
        return self.named_operand()

    def named_operand(self) -> Operand:
        name = self.take()
        for scope in reversed(self.scopes):
            if name in scope:
                register = scope[name]
                return Group((register, self.operand())) if self.accept("|") else register
        if name.startswith("%"):
            return Special(name)
        return Symbol(self.variables.get(name, name))


def parse(text: str, path: str) -> Module:
    """The functions of a file of PTX."""
    return Parser(text, path).parse()
