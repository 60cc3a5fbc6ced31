"""The PTX instructions that are more than an expression: memory, control, and what threads do together.

Each function gives the C++ of an instruction; beside it stand the headings of its sections in the PTX ISA.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from ptx.instructions import expand
from ptx.parse import BITS, Address, Group, Instruction, Operand, PtxError, Register, Symbol

TYPES = "{b8,b16,b32,b64,u8,u16,u32,u64,s8,s16,s32,s64,f32,f64}"


class Context(Protocol):
    """What the translator of a function offers."""

    def value(self, operand: Operand, kind: str) -> str:
        """An expression of the operand, of the C++ type of `kind`."""

    def assign(self, operand: Operand, kind: str, expression: str) -> str:
        """The statement that puts an expression of that kind into a register."""

    def local(self, address: Address, size: int) -> str:
        """The checked pointer to bytes of the thread's own memory."""

    def parameter(self, address: Address, size: int) -> str:
        """A pointer to bytes of the parameters."""

    def function(self, name: str) -> str:
        """The C++ name of a device function."""

    def flag(self, register: Register) -> int:
        """The place of a register among those that `wgmma` has in flight."""


Effect = Callable[[Instruction, Context], str]
EFFECTS: dict[str, Effect] = {}


def effect(*patterns: str, section: str) -> Callable[[Effect], Effect]:
    """Puts the decorated function into EFFECTS for all opcodes of the patterns."""
    assert section

    def register(function: Effect) -> Effect:
        EFFECTS.update({opcode: function for pattern in patterns for opcode in expand(pattern)})
        return function

    return register


def cxx(kind: str) -> str:
    """The C++ type of a PTX type; untyped bits are unsigned."""
    if kind in ("f32", "f64", "pred"):
        return {"f32": "float", "f64": "double", "pred": "bool"}[kind]
    return f"{'int' if kind[0] == 's' else 'uint'}{128 if kind[1:] == '128' else BITS.get(kind, 16)}_t"


def parts_of(operand: Operand) -> tuple[Operand, ...]:
    return operand.parts if isinstance(operand, Group) else (operand,)


def address_of(operand: Operand, context: Context, kind: str) -> str:
    if not isinstance(operand, Address):
        raise PtxError("an address was expected")
    base = context.value(operand.base, kind)
    return f"{base} + {operand.offset}" if operand.offset else base


def _memory_parts(opcode: str) -> tuple[str, str, int]:
    """The state space, the type and the number of elements of a load or store."""
    parts = opcode.split(".")
    space = next(part for part in parts if part in ("global", "shared", "local", "param"))
    return space, parts[-1], next((int(part[1]) for part in parts if part in ("v2", "v4")), 1)


def _place(space: str, access: str, operand: Operand, size: int, line: int, context: Context) -> str:
    """The checked pointer to `size` bytes."""
    assert isinstance(operand, Address)
    if space == "param":
        return context.parameter(operand, size)
    if space == "local":
        return context.local(operand, size)
    address = address_of(operand, context, "u64" if space == "global" else "u32")
    return f"{space}_{access}({address}, {size}, {line})"


@effect(f"ld.{{global,shared,local,param,volatile.global,volatile.shared}}.{TYPES}",
        "ld.{global,shared,local,param}.{v2,v4}." + TYPES,
        section="Data Movement and Conversion Instructions: ld, Vectors as Operands")  # fmt: skip
def load(i: Instruction, context: Context) -> str:
    space, kind, count = _memory_parts(i.opcode)
    targets = parts_of(i.operands[0])
    if len(targets) != count:
        raise PtxError(f"{count} registers were expected")
    place = _place(space, "read", i.operands[1], BITS[kind] // 8 * count, i.line, context)
    if count == 1:
        return context.assign(targets[0], kind, f"load<{cxx(kind)}>({place})")
    loads = [context.assign(to, kind, f"load<{cxx(kind)}>(from, {n})") for n, to in enumerate(targets)]
    return f"{{ const char* const from = {place}; {' '.join(loads)} }}"


@effect(f"st.{{global,shared,local,param,volatile.global,volatile.shared}}.{TYPES}",
        "st.{global,shared,local}.{v2,v4}." + TYPES,
        section="Data Movement and Conversion Instructions: st, Vectors as Operands")  # fmt: skip
def store(i: Instruction, context: Context) -> str:
    space, kind, count = _memory_parts(i.opcode)
    values = parts_of(i.operands[1])
    if len(values) != count:
        raise PtxError(f"{count} values were expected")
    place = _place(space, "write", i.operands[0], BITS[kind] // 8 * count, i.line, context)
    stores = [f"store<{cxx(kind)}>(to, {n}, {context.value(value, kind)});" for n, value in enumerate(values)]
    return f"{{ char* const to = {place}; {' '.join(stores)} }}"


@effect("atom.{global,shared}.{min,max}.{u32,s32,u64,s64}", "atom.{global,shared}.add.{u32,s32,u64,f32,f64}",
        "atom.{global,shared}.{and,or,xor,exch}.{b32,b64}",
        section="Parallel Synchronization and Communication Instructions: atom")  # fmt: skip
def atomic(i: Instruction, context: Context) -> str:
    _, space, operation, kind = i.opcode.split(".")
    place = _place(space, "atomic", i.operands[1], BITS[kind] // 8, i.line, context)
    value = context.value(i.operands[2], kind)
    return context.assign(i.operands[0], kind, f"atomic_{operation}<{cxx(kind)}>({place}, {value})")


@effect("atom.{global,shared}.cas.{b32,b64}", section="Parallel Synchronization and Communication Instructions: atom")
def compare_and_swap(i: Instruction, context: Context) -> str:
    _, space, _, kind = i.opcode.split(".")
    place = _place(space, "atomic", i.operands[1], BITS[kind] // 8, i.line, context)
    values = ", ".join(context.value(operand, kind) for operand in i.operands[2:])
    return context.assign(i.operands[0], kind, f"atomic_cas<{cxx(kind)}>({place}, {values})")


@effect("red.{global,shared}.{min,max}.{u32,s32,u64,s64}", "red.{global,shared}.add.{u32,s32,u64,f32,f64}",
        "red.{global,shared}.{and,or,xor}.{b32,b64}",
        section="Parallel Synchronization and Communication Instructions: red")  # fmt: skip
def reduction(i: Instruction, context: Context) -> str:
    _, space, operation, kind = i.opcode.split(".")
    place = _place(space, "atomic", i.operands[0], BITS[kind] // 8, i.line, context)
    return f"atomic_{operation}<{cxx(kind)}>({place}, {context.value(i.operands[1], kind)});"


@effect("mov.{b32,b64}", section="Data Movement and Conversion Instructions: mov, with packing and unpacking")
def move(i: Instruction, context: Context) -> str:
    to, source = i.operands
    kind = i.opcode.removeprefix("mov.")
    packing, unpacking = isinstance(source, Group), isinstance(to, Group)
    if not packing and not unpacking:
        return context.assign(to, kind, context.value(source, kind))
    parts = parts_of(source if packing else to)
    width = BITS[kind] // len(parts)
    if packing:
        terms = [f"{cxx(kind)}({context.value(p, f'b{width}')}) << {n * width}" for n, p in enumerate(parts)]
        return context.assign(to, kind, " | ".join(terms))
    moves = [context.assign(p, f"b{width}", f"{cxx(f'b{width}')}(from >> {n * width})") for n, p in enumerate(parts)]
    return f"{{ const {cxx(kind)} from = {context.value(source, kind)}; {' '.join(moves)} }}"


# ---- control ---------------------------------------------------------------------------------------------------------


@effect("bra{,.uni}", section="Control Flow Instructions: bra")
def branch(i: Instruction, context: Context) -> str:
    (target,) = i.operands
    if not isinstance(target, Symbol):
        raise PtxError("a label was expected")
    return f"goto {label(target.name)};"


@effect("{ret,exit}", section="Control Flow Instructions: ret, exit")
def leave(i: Instruction, context: Context) -> str:
    return "return;"


@effect("call{,.uni}", section="Control Flow Instructions: call")
def call(i: Instruction, context: Context) -> str:
    groups = [operand for operand in i.operands if isinstance(operand, Group)]
    name = next(operand for operand in i.operands if isinstance(operand, Symbol))
    arguments = [part.name for group in groups for part in group.parts if isinstance(part, Symbol)]
    return f"{context.function(name.name)}({', '.join(arguments)});"


def label(name: str) -> str:
    """The C++ name of a label."""
    return re.sub(r"\W", "_", name).lstrip("_")


# ---- threads together ------------------------------------------------------------------------------------------------


@effect("bar.sync", section="Parallel Synchronization and Communication Instructions: bar")
def barrier(i: Instruction, context: Context) -> str:
    return f"block_barrier({_barrier_number(i)}, {i.line});"


@effect("bar.red.{or.pred,and.pred,popc.u32}",
        section="Parallel Synchronization and Communication Instructions: bar")  # fmt: skip
def barrier_vote(i: Instruction, context: Context) -> str:
    _, _, operation, kind = i.opcode.split(".")
    number = context.value(i.operands[1], "u32")
    vote = f"block_barrier_{operation}({number}, {context.value(i.operands[2], 'pred')}, {i.line})"
    return context.assign(i.operands[0], kind, vote)


def _barrier_number(i: Instruction) -> str:
    if len(i.operands) != 1:
        raise PtxError("a barrier of some of the threads is not known")
    (number,) = i.operands
    return getattr(number, "text", "0")


@effect("bar.warp.sync", section="Parallel Synchronization and Communication Instructions: bar.warp.sync")
def warp_barrier(i: Instruction, context: Context) -> str:
    return f"warp_barrier({context.value(i.operands[0], 'u32')}, {i.line});"


@effect("shfl.sync.{up,down,bfly,idx}.b32", section="Data Movement and Conversion Instructions: shfl.sync")
def shuffle(i: Instruction, context: Context) -> str:
    mode = i.opcode.split(".")[2]
    to = parts_of(i.operands[0])
    values = ", ".join(context.value(operand, "u32") for operand in i.operands[1:])
    result = f"bool inside; const uint32_t got = shuffle(Shuffle::{mode}, {values}, inside, {i.line});"
    moves = [context.assign(to[0], "b32", "got"), *(context.assign(p, "pred", "inside") for p in to[1:])]
    return f"{{ {result} {' '.join(moves)} }}"


@effect("vote.sync.{any,all}.pred", "vote.sync.ballot.b32",
        section="Parallel Synchronization and Communication Instructions: vote.sync")  # fmt: skip
def vote(i: Instruction, context: Context) -> str:
    _, _, operation, kind = i.opcode.split(".")
    predicate, mask = context.value(i.operands[1], "pred"), context.value(i.operands[2], "u32")
    return context.assign(i.operands[0], kind, f"vote_{operation}({predicate}, {mask}, {i.line})")


@effect("redux.sync.{add,min,max}.{u32,s32}", "redux.sync.{and,or,xor}.b32",
        section="Parallel Synchronization and Communication Instructions: redux.sync")  # fmt: skip
def reduce(i: Instruction, context: Context) -> str:
    _, _, operation, kind = i.opcode.split(".")
    value, mask = context.value(i.operands[1], kind), context.value(i.operands[2], "u32")
    return context.assign(i.operands[0], kind, f"reduce_{operation}<{cxx(kind)}>({value}, {mask}, {i.line})")


# ---- asynchronous copies and tensor cores ----------------------------------------------------------------------------

_COPY = "Data Movement and Conversion Instructions: Non-bulk copy"


@effect("cp.async.{cg,ca}.shared.global", section=f"{_COPY}, cp.async")
def copy_async(i: Instruction, context: Context) -> str:
    to = address_of(i.operands[0], context, "u32")
    source = address_of(i.operands[1], context, "u64")
    size = context.value(i.operands[2], "u32")
    taken = context.value(i.operands[3], "u32") if len(i.operands) > 3 else size
    return f"copy_async({to}, {source}, {size}, {taken}, {i.line});"


@effect("cp.async.commit_group", section=f"{_COPY}, cp.async.commit_group")
def commit_group(i: Instruction, context: Context) -> str:
    return "commit_copies();"


@effect("cp.async.{wait_group,wait_all}", section=f"{_COPY}, cp.async.wait_group, cp.async.wait_all")
def wait_group(i: Instruction, context: Context) -> str:
    if i.opcode.endswith("wait_all"):
        return "commit_copies(); wait_for_copies(0);"
    return f"wait_for_copies({context.value(i.operands[0], 'u32')});"


@effect("ldmatrix.sync.aligned.m8n8.x4{,.trans}.shared.b16",
        section="Warp Level Matrix Instructions: ldmatrix")  # fmt: skip
def load_matrices(i: Instruction, context: Context) -> str:
    targets = parts_of(i.operands[0])
    moves = [context.assign(to, "b32", f"got[{n}]") for n, to in enumerate(targets)]
    transposed = "true" if ".trans." in i.opcode else "false"
    address = address_of(i.operands[1], context, "u32")
    return f"{{ uint32_t got[4]; load_matrices(got, {address}, {transposed}, {i.line}); {' '.join(moves)} }}"


@effect("mma.sync.aligned.m16n8k16.row.col.f32.{f16.f16,bf16.bf16}.f32",
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
        section="Warp Level Matrix Instructions: mma")  # fmt: skip
def multiply_matrices(i: Instruction, context: Context) -> str:
    to, a, b, c = (parts_of(operand) for operand in i.operands)
    words = [", ".join(context.value(part, "b32") for part in parts) for parts in (a, b)]
    addends = ", ".join(context.value(part, "f32") for part in c)
    moves = [context.assign(part, "f32", f"d[{n}]") for n, part in enumerate(to)]
    kind = i.opcode.split(".")[-2]
    return (
        f"{{ const uint32_t a[4] = {{{words[0]}}}, b[2] = {{{words[1]}}}; float d[4] = {{{addends}}}; "
        f"multiply_matrices(Element::{kind}, d, a, b, {i.line}); {' '.join(moves)} }}"
    )
