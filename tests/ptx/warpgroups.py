"""The PTX instructions of warpgroups: `wgmma`, and the fence between the ways to shared memory.

Beside each function stand the headings of its sections in the PTX ISA.
"""

from __future__ import annotations

from ptx.effects import Context, effect, parts_of
from ptx.parse import Group, Instruction, Number, Operand, PtxError, Register

_SECTION = "Asynchronous Warpgroup Level Matrix Instructions"
_WIDTHS = "{" + ",".join(str(n) for n in range(8, 257, 8)) + "}"
PRODUCT = "wgmma.mma_async."


def registers_of(i: Instruction) -> list[Register]:
    """The registers that a product has in flight: its sums, and fragments of its left operand."""
    if not i.opcode.startswith(PRODUCT):
        return []
    return [part for operand in i.operands[:2] for part in parts_of(operand) if isinstance(part, Register)
            and (isinstance(operand, Group) or operand is i.operands[0])]  # fmt: skip


@effect("wgmma.fence.sync.aligned", section=f"{_SECTION}: wgmma.fence")
def fence(i: Instruction, context: Context) -> str:
    return "fence_registers(in_flight, sizeof(in_flight));"


@effect("wgmma.commit_group.sync.aligned", section=f"{_SECTION}: wgmma.commit_group")
def commit_group(i: Instruction, context: Context) -> str:
    return "commit_products();"


@effect("wgmma.wait_group.sync.aligned", section=f"{_SECTION}: wgmma.wait_group")
def wait_group(i: Instruction, context: Context) -> str:
    return f"wait_for_products({context.value(i.operands[0], 'u32')});"


@effect("fence.proxy.async{,.shared::cta}",
        section="Parallel Synchronization and Communication Instructions: membar, fence")  # fmt: skip
def proxy_fence(i: Instruction, context: Context) -> str:
    return "fence_async_proxy();"


@effect(f"{PRODUCT}sync.aligned.m64n{_WIDTHS}k16.f32.{{f16.f16,bf16.bf16}}",
        section=f"{_SECTION}: wgmma.mma_async, Register Fragments, Shared Memory Matrix Layout")  # fmt: skip
def multiply(i: Instruction, context: Context) -> str:
    """Operands: d, a or its descriptor, b's descriptor, scale-d, imm-scale-a, imm-scale-b, transpositions."""
    kind = i.opcode.split(".")[-1]
    columns = int(i.opcode.split(".m64n")[1].split("k")[0])
    sums, left = parts_of(i.operands[0]), i.operands[1]
    in_registers = isinstance(left, Group)
    if len(sums) != columns // 2:
        raise PtxError(f"{columns // 2} registers were expected for the sums")
    if in_registers and len(parts_of(left)) != 4:
        raise PtxError("4 registers were expected for the left operand")
    if len(i.operands) != (7 if in_registers else 8):
        raise PtxError("the operands of f16 and bf16 are d, a, b, scale-d, two scales, and the transpositions")
    scales = [_constant(operand) for operand in i.operands[4:6]]
    if any(scale not in (1, -1) for scale in scales):
        raise PtxError("a scale is 1 or -1")
    if any(_constant(operand) != 0 for operand in i.operands[6:]):
        raise PtxError("matrices whose rows or columns are contiguous are not known, only those along k")
    lists = [_list("d", sums, context)]
    if in_registers:
        lists.append(_list("a", parts_of(left), context))
        words = ", ".join(context.value(part, "b32") for part in parts_of(left))
        lists.append(f"const uint32_t words[4] = {{{words}}};")
    else:
        lists.append(f"const uint64_t left = {context.value(left, 'b64')};")
    accumulates = context.value(i.operands[3], "pred")
    right = context.value(i.operands[2], "b64")
    source = "0, words, a, a_flags" if in_registers else "left, nullptr, nullptr, nullptr"
    return (
        f"{{ {' '.join(lists)} multiply_warpgroup({{Element::{kind}, {columns}, d, d_flags, {source}, {right}, "
        f"{accumulates}, {scales[0]}, {scales[1]}}}, {i.line}); }}"
    )


def _constant(operand: Operand) -> int:
    if not isinstance(operand, Number):
        raise PtxError("a constant was expected")
    return int(operand.text, 0)


def _list(name: str, parts: tuple[Operand, ...], context: Context) -> str:
    """Arrays of the addresses of registers, and of the flags that tell what is known of them."""
    places, flags = [], []
    for part in parts:
        if not isinstance(part, Register):
            raise PtxError("a register was expected")
        places.append(f"&{part.name}")
        flags.append(f"in_flight + {context.flag(part)}")
    return f"void* const {name}[] = {{{', '.join(places)}}}; uint8_t* const {name}_flags[] = {{{', '.join(flags)}}};"
