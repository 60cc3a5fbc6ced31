"""PTX to C++: each kernel becomes a function that one thread of the emulator runs, over `runtime.h`.

A register is a variable, a label a label, an instruction a statement. Shared arrays get addresses with gaps between
them, so that an access past the end of one meets no other.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ptx.effects import EFFECTS, cxx, label
from ptx.instructions import TABLE, Row
from ptx.parse import (
    BITS,
    Address,
    Function,
    Instruction,
    Label,
    Module,
    Number,
    Operand,
    PtxError,
    Register,
    Special,
    Symbol,
    Variable,
    parse,
)
from ptx.warpgroups import PRODUCT, registers_of

SPECIAL = {
    **{f"%tid.{axis}": f"threadIdx.{axis}" for axis in "xyz"},
    **{f"%ctaid.{axis}": f"blockIdx.{axis}" for axis in "xyz"},
    **{f"%ntid.{axis}": f"blockDim.{axis}" for axis in "xyz"},
    **{f"%nctaid.{axis}": f"gridDim.{axis}" for axis in "xyz"},
    "%laneid": "emulator::lane()",
}
FIRST_SHARED = 1024  # so that zero is no address
GAP = 1024
LINES_AT_ONCE = 6000  # of PTX in one file of C++


@dataclass(frozen=True)
class Placed:
    """A variable and where it lies."""

    variable: Variable
    offset: int


def place(variables: list[Variable], first: int = 0, gap: int = 0) -> list[Placed]:
    """One after the other, each at a multiple of its alignment."""
    placed, offset = [], first
    for variable in variables:
        offset = -(-offset // variable.alignment) * variable.alignment
        placed.append(Placed(variable, offset))
        offset += variable.size + gap
    return placed


def end_of(placed: list[Placed], first: int = 0) -> int:
    return placed[-1].offset + placed[-1].variable.size if placed else first


class _Typed:
    """An operand in the code of a Row: formats as the expression, read as the type that the format names."""

    def __init__(self, translator: FunctionTranslator, operand: Operand, kinds: dict[str, str]) -> None:
        self.translator, self.operand, self.kinds = translator, operand, kinds

    def __format__(self, spec: str) -> str:
        return self.translator.value(self.operand, self.kinds.get(spec or "T", spec))


class FunctionTranslator:
    """Translates one function of a module."""

    def __init__(self, module: Module, function: Function) -> None:
        self.module, self.ptx = module, function
        self.line = function.line
        self.parameters = {p.variable.name: p for p in place(function.parameters)}
        arrays = [*module.shared, *function.shared]
        used = self._names()
        self.shared = place([a for a in arrays if a.name in used and a.size], FIRST_SHARED, GAP)
        aligned = max([16, *(a.alignment for a in arrays if a.name in used and a.size == 0)])
        self.dynamic_address = -(-(end_of(self.shared, FIRST_SHARED) + GAP) // aligned) * aligned
        self.addresses = {placed.variable.name: placed.offset for placed in self.shared}
        self.addresses.update({a.name: self.dynamic_address for a in arrays if a.size == 0})
        self.own = place(function.local)  # local memory
        self.addresses.update({placed.variable.name: placed.offset for placed in self.own})
        self.called: list[str] = []
        products = [r for s in function.body if isinstance(s, Instruction) for r in registers_of(s)]
        self.flags = {register.name: n for n, register in enumerate(dict.fromkeys(products))}
        self.accessed: list[str] = []  # of those, by the instruction at hand
        if self.flags and not function.is_entry:
            raise self.error("wgmma in a device function is not known")

    def _names(self) -> set[str]:
        """All symbols in the function's instructions."""
        names = set()
        for statement in self.ptx.body:
            for operand in getattr(statement, "operands", ()):
                base = operand.base if isinstance(operand, Address) else operand
                if isinstance(base, Symbol):
                    names.add(base.name)
        return names

    def error(self, what: str) -> PtxError:
        return PtxError(f"{self.module.path}:{self.line}: {what}")

    # ---- operands ----

    def value(self, operand: Operand, kind: str) -> str:
        """An expression of the operand, of the C++ type of `kind`."""
        if isinstance(operand, Register):
            return self._register(operand, kind)
        if isinstance(operand, Number):
            return self._number(operand.text, kind)
        if isinstance(operand, Special) and operand.name in SPECIAL:
            return f"{cxx(kind)}({SPECIAL[operand.name]})"
        if isinstance(operand, Symbol) and operand.name in self.addresses:
            return f"{cxx(kind)}({self.addresses[operand.name]})"
        if isinstance(operand, Symbol) and self.ptx.is_entry and operand.name in self.parameters:
            return f"{cxx(kind)}({self.parameters[operand.name].offset})"
        raise self.error(f"unknown operand {operand}")

    def _register(self, register: Register, kind: str) -> str:
        bits = BITS.get(kind, 16)
        self.accessed.append(register.name)
        if (register.type == "pred") != (kind == "pred") or BITS[register.type] < bits:
            raise self.error(f"register {register.name} of type {register.type} cannot be read as {kind}")
        if register.type in ("f32", "f64") and kind != register.type:
            whole = f"as<uint{BITS[register.type]}_t>({register.name})"
            return f"as<float>({whole})" if kind == "f32" else f"{cxx(kind)}({whole})"
        if kind in ("f32", "f64") and kind != register.type:
            return f"as<{cxx(kind)}>(uint{bits}_t({register.name}))"
        return register.name if cxx(register.type) == cxx(kind) else f"{cxx(kind)}({register.name})"

    def _number(self, text: str, kind: str) -> str:
        if kind == "pred":
            return "true" if int(text, 0) else "false"
        if text[:2] in ("0f", "0F", "0d", "0D"):
            bits = 32 if text[1] in "fF" else 64
            word = f"uint{bits}_t(0x{text[2:]}u)"
            if BITS[kind] != bits:
                raise self.error(f"{text} cannot be read as {kind}")
            return f"as<{cxx(kind)}>({word})" if kind[0] == "f" else f"{cxx(kind)}({word})"
        if kind in ("f32", "f64"):
            raise self.error(f"{text} cannot be read as {kind}")
        number = int(text, 0)
        return f"{cxx(kind)}({number})" if abs(number) < 1 << 31 else f"{cxx(kind)}({number % (1 << 64)}ull)"

    def assign(self, operand: Operand, kind: str, expression: str) -> str:
        """The statement that puts an expression of that kind into a register."""
        if not isinstance(operand, Register):
            raise self.error(f"a register was expected, found {operand}")
        declared = operand.type
        self.accessed.append(operand.name)
        if (declared == "pred") != (kind == "pred") or BITS[declared] < BITS.get(kind, 16):
            raise self.error(f"register {operand.name} of type {declared} cannot take a {kind}")
        if declared in ("f32", "f64") and kind != declared:
            return f"{operand.name} = as<{cxx(declared)}>(uint{BITS[declared]}_t({expression}));"
        if kind in ("f32", "f64") and kind != declared:
            return f"{operand.name} = as<uint{BITS[kind]}_t>({expression});"
        return f"{operand.name} = {cxx(declared)}({expression});"

    def local(self, address: Address, size: int) -> str:
        """The checked pointer to bytes of the thread's own memory."""
        base = self.value(address.base, "u64")
        return f"local(own, {end_of(self.own)}, {base} + {address.offset}, {size}, {self.line})"

    def parameter(self, address: Address, size: int) -> str:
        """A pointer to bytes of the parameters."""
        base, offset = address.base, address.offset
        if not isinstance(base, Symbol):
            return f"parameter_read({self.value(base, 'u64')} + {offset}, {size}, {self.line})"
        variables = [*self.ptx.parameters, *self.ptx.results, *self.ptx.variables]
        variable = next((v for v in variables if v.name == base.name), None)
        if variable is None or not 0 <= offset <= variable.size - size or offset % size:
            raise self.error(f"{size} bytes at {offset} are not in a parameter {base.name}, or not aligned")
        if self.ptx.is_entry and base.name in self.parameters:
            return f"params + {self.parameters[base.name].offset + offset}"
        return f"{base.name} + {offset}"

    def function(self, name: str) -> str:
        """The C++ name of a device function."""
        if name not in {function.name for function in self.module.functions if not function.is_entry}:
            raise self.error(f"unknown function {name}")
        self.called.append(name)
        return name

    def flag(self, register: Register) -> int:
        """The place of a register among those that `wgmma` has in flight."""
        return self.flags[register.name]

    # ---- statements ----

    def instruction(self, i: Instruction) -> str:
        """The statement of one instruction."""
        self.line, self.accessed = i.line, []
        try:
            if i.opcode in EFFECTS:
                code = EFFECTS[i.opcode](i, self)
            elif i.opcode in TABLE:
                code = self._expression(TABLE[i.opcode], i)
            else:
                raise self.error(f"unknown instruction {i.opcode}")
        except PtxError as error:
            raise error if str(error).startswith(self.module.path) else self.error(f"{i.opcode}: {error}") from None
        if not i.opcode.startswith(PRODUCT):
            places = [self.flags[name] for name in dict.fromkeys(self.accessed) if name in self.flags]
            code = "".join(f"access_register(in_flight[{n}], {i.line}); " for n in places) + code
        if i.guard is None:
            return code
        return f"if ({'!' * i.guard_negated}{i.guard.name}) {{ {code} }}"

    def _expression(self, row: Row, i: Instruction) -> str:
        kinds = self._kinds(i.opcode)
        sources = {name: _Typed(self, operand, kinds) for name, operand in zip("abcd", i.operands[1:], strict=False)}
        types = {name: cxx(kind) for name, kind in kinds.items()}
        code = row.code.format(**sources, **types, bits=BITS.get(kinds["T"], 16), line=i.line)
        return self.assign(i.operands[0], kinds.get(row.result, row.result), code)

    @staticmethod
    def _kinds(opcode: str) -> dict[str, str]:
        """The types that the code of a row names."""
        parts = opcode.split(".")
        last = parts[-1]
        kinds = {"T": parts[-2] if parts[0] == "cvt" else last, "F": last}
        if kinds["T"] == "tf32":
            kinds["T"] = "b32"
        if re.fullmatch(r"[busf]\d+", kinds["T"]):
            sign, bits = kinds["T"][0], int(kinds["T"][1:])
            kinds |= {"U": f"u{bits}", "S": f"s{bits}", "W": f"{'s' if sign == 's' else 'u'}{bits * 2}"}
        return kinds

    def body(self) -> list[str]:
        """All statements, and the variables before them."""
        lines = []
        for kind in sorted({register.type for register in self.ptx.registers}):
            names = [register.name for register in self.ptx.registers if register.type == kind]
            lines.append(f"{cxx(kind)} {', '.join(names)};")
        lines += [f"alignas({v.alignment}) char {v.name}[{v.size}];" for v in self.ptx.variables]
        if self.own:
            lines.append(f"alignas(16) char own[{end_of(self.own)}]; __builtin_memset(own, 0xff, sizeof(own));")
        if self.flags:
            lines.append(f"uint8_t in_flight[{len(self.flags)}] = {{}};")
        for statement in self.ptx.body:
            lines.append(f"{label(statement.name)}:;" if isinstance(statement, Label) else self.instruction(statement))
        return lines


def translate_device_function(module: Module, function: Function) -> str:
    """The C++ of a function that kernels call; each parameter and result is a pointer to its bytes."""
    lines = FunctionTranslator(module, function).body()
    results = [f"char* const {v.name}" for v in function.results]
    parameters = [f"const char* const {v.name}" for v in function.parameters]
    head = f"static void {function.name}({', '.join(results + parameters)}) {{"
    return "\n  ".join([head, *lines]) + "\n}\n"


def translate_kernel(module: Module, function: Function, name: str) -> tuple[str, list[str]]:
    """The C++ of a kernel with its Entry, called `name`, and the names of the functions that it calls."""
    translator = FunctionTranslator(module, function)
    lines = translator.body()
    parameters = list(translator.parameters.values())
    text = "\n  ".join([f"static void {name}_run(const char* const params) {{", *lines]) + "\n}\n"
    rows = ", ".join(f"{{{p.offset}, {p.variable.size}}}" for p in parameters)
    arrays = ", ".join(f"{{{p.offset}, {p.variable.size}}}" for p in translator.shared)
    static_bytes = end_of(place([p.variable for p in translator.shared]))
    text += f"static const Extent {name}_parameters[] = {{{rows or '{0, 0}'}}};\n"
    text += f"static const Extent {name}_shared[] = {{{arrays or '{0, 0}'}}};\n"
    text += (
        f'extern const Entry {name};\nconst Entry {name} = {{"{function.name}", "{module.path}", {name}_run, '
        f"{name}_parameters, {len(parameters)}, {name}_shared, {len(translator.shared)}, "
        f"{translator.dynamic_address}, {static_bytes}, {function.max_threads}, "
        f"{'true' if module.target == 'sm_90a' else 'false'}}};\n"
    )
    return text, translator.called


def translate(module: Module, stem: str) -> tuple[list[str], list[str]]:
    """Files of C++ of about equal size with all kernels of a module, and the kernels' names in PTX.

    The Entry of the kernel at place i is called `<stem>_entry_<i>`.
    """
    kernels = [function for function in module.functions if function.is_entry]
    helpers = {f.name: translate_device_function(module, f) for f in module.functions if not f.is_entry}
    files: list[str] = []
    texts: list[str] = []
    used: set[str] = set()

    def finish() -> None:
        parts = ['#include "ptx/runtime.h"\n\nnamespace fastcv::ptx {\n', *(helpers[name] for name in sorted(used))]
        files.append("\n".join([*parts, *texts]) + "\n}  // namespace fastcv::ptx\n")
        texts.clear()
        used.clear()

    lines = 0
    for i, kernel in enumerate(kernels):
        if texts and lines + len(kernel.body) > LINES_AT_ONCE:
            finish()
            lines = 0
        text, called = translate_kernel(module, kernel, f"{stem}_entry_{i}")
        texts.append(text)
        used |= set(called)
        lines += len(kernel.body)
    finish()
    return files, [kernel.name for kernel in kernels]


def main() -> None:
    """translate.py FILE STEM FOLDER LIST: writes C++ into the folder, and the names of its files and kernels as JSON.

    The files are called by what they hold, so that another translator that gives the same C++ costs no compilation.
    """
    path, stem, folder, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    texts, kernels = translate(parse(path.read_text(), f"{stem}.ptx"), stem)
    files = [f"{stem}_kernels-{hashlib.sha256(text.encode()).hexdigest()[:12]}.cpp" for text in texts]
    for name, text in zip(files, texts, strict=True):
        (folder / name).write_text(text)
    target.write_text(json.dumps({"files": files, "kernels": kernels}))


if __name__ == "__main__":
    main()
