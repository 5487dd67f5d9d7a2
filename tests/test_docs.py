"""The documents name only what exists: files, commands, make targets, tests, settings and numbers."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from market.cli import build_app
from market.protocol.hashing import Role
from market.protocol.program import SIGNATURES, Kind, Op, OutputKind, TensorRole
from market.protocol.tensors import Dtype
from market.settings import Settings

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SECURITY = ROOT / "docs/security.md"
PROTOCOL = (ROOT / "docs/protocol.md").read_text()

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CITED_TEST = re.compile(r"`((?:test|invariant)\w+)` \(\[[^\]]*\]\(([^)\s]+)\)\)")
TEST_NAME = re.compile(r"`((?:test|testFuzz|invariant)_\w+)`")

each_document = pytest.mark.parametrize(
    "document", DOCS, ids=lambda path: str(path.relative_to(ROOT))
)


def list_command_lines(document: Path, program: str) -> Iterator[tuple[list[str], bool]]:
    """Yield the arguments of every line and mention of ``program``; a line of a block is whole."""
    text = document.read_text()
    blocks = [block for language, block in FENCE.findall(text) if language == "sh"]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines):
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words and words[0] == program:
            yield words[1:], True
    for mention in re.findall(rf"`{program} ([^`]+)`", FENCE.sub("", text)):
        yield shlex.split(mention), False


def find_fault(arguments: list[str], *, is_whole: bool) -> str | None:
    """Return why `touchstone` would not take ``arguments``; nothing is run and no value is read."""
    command = typer.main.get_command(build_app())
    context = None
    words = list(arguments)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return f"no command {name!r}"
        context = command.context_class(command, info_name=name, parent=context)
        command = command.commands[name]
    context = command.context_class(command, parent=context)
    options = {option for parameter in command.get_params(context) for option in parameter.opts}
    unknown = [w for w in words if w.startswith("--") and w.partition("=")[0] not in options]
    if unknown or not is_whole or hasattr(command, "commands"):
        return f"no option {unknown[0]!r}" if unknown else None
    values, rest, _ = command.make_parser(context).parse_args(words)
    required = [parameter.name for parameter in command.params if parameter.required]
    missing = [name for name in required if not isinstance(values.get(name), str)]
    return f"too many: {rest}" if rest else f"missing: {missing}" if missing else None


def read_table(header: str) -> list[list[str]]:
    """Return the cells of the table in the protocol whose first columns are ``header``."""
    lines = PROTOCOL[PROTOCOL.index(f"| {header} |") :].splitlines()[2:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def get_numbers(names: type) -> dict[str, int]:
    """Return an enumeration as the protocol writes it."""
    return {member.name.lower(): int(member) for member in names}


@each_document
def test_every_relative_link_leads_somewhere(document):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", document.read_text()))
    targets = [t.partition("#")[0] for t in LINK.findall(text) if "://" not in t]

    broken = [t for t in targets if t and not (document.parent / t).exists()]

    assert broken == []


@each_document
def test_every_command_line_is_one_that_exists(document):
    lines = list(list_command_lines(document, "touchstone"))

    faults = {" ".join(words): find_fault(words, is_whole=whole) for words, whole in lines}

    assert {line: fault for line, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    "line",
    [
        "no-such",
        "job no-such",
        "job show 1 --no-such",
        "job show",
        "job show 1 2",
        "job model 1",
    ],
)
def test_a_command_line_that_does_not_exist_is_found(line):
    assert find_fault(shlex.split(line), is_whole=True) is not None


@each_document
def test_every_make_target_is_in_the_makefile(document):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [words for words, _ in list_command_lines(document, "make")]

    assert {word for words in lines for word in words if "=" not in word} <= targets


@each_document
def test_every_setting_is_one_that_is_read(document):
    known = {f"TOUCHSTONE_{name.upper()}" for name in Settings.model_fields}
    commands = (ROOT / "market/commands").glob("*.py")
    known |= {name for path in commands for name in re.findall(r'envvar="(\w+)"', path.read_text())}

    assert set(re.findall(r"TOUCHSTONE_[A-Z_]*[A-Z]", document.read_text())) <= known


def test_every_test_that_the_security_page_cites_is_where_it_says():
    text = SECURITY.read_text()
    cited = CITED_TEST.findall(text)

    absent = [
        name
        for name, file in cited
        if not re.search(rf"(def|function) {name}\(", (SECURITY.parent / file).read_text())
    ]

    assert absent == []
    assert {name for name, _ in cited} == set(TEST_NAME.findall(text))


def test_every_attack_that_is_tested_is_on_the_security_page():
    source = "".join(path.read_text() for path in (ROOT / "contracts/test").glob("*.t.sol"))
    attacks = set(re.findall(r"function (test\w*_attack_\w+)\(", source))

    assert attacks <= {name for name, _ in CITED_TEST.findall(SECURITY.read_text())}


@pytest.mark.parametrize("package", ["market", "trainer", "verifier"])
def test_every_module_says_what_it_owns(package):
    modules = [path for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]

    silent = [path.name for path in modules if not ast.get_docstring(ast.parse(path.read_text()))]

    assert modules
    assert silent == []


def test_the_protocols_leaf_roles_are_those_of_the_code():
    written = {int(number): leaf for number, leaf, _ in read_table("role | leaf | payload")}

    assert set(written) == set(Role)
    assert all(written[role].startswith(role.name.lower().replace("_", " ")) for role in Role)


def test_the_protocols_kinds_of_instruction_are_those_of_the_code():
    kinds = [cells[0].split() for cells in read_table("kind | operands")]

    assert {name.strip("`"): int(number) for number, name in kinds} == get_numbers(Kind)


def test_the_protocols_opcodes_and_their_types_are_those_of_the_code():
    written = {}
    for numbers, names, types, *_ in read_table("opcode | name"):
        operands, result = ("".join(t[0] for t in side.split()) for side in types.split("->"))
        first, last = (int(re.findall(r"\d+", numbers)[i]) for i in (0, -1))
        codes = zip(names.strip("`").split(), range(first, last + 1), strict=True)
        written |= {name: (code, (operands, result)) for name, code in codes}

    assert written == {op.name.lower(): (int(op), SIGNATURES[op]) for op in Op}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [(r"\b(\d) `(\w+)`", Dtype), (r"\b(\d) \*(\w+)\*", TensorRole)],
)
def test_the_protocols_dtypes_and_tensor_roles_are_those_of_the_code(pattern, names):
    start = PROTOCOL.index("dtype: 0 none" if names is Dtype else "**Tensors** have a role")
    paragraph = PROTOCOL[start : PROTOCOL.index("\n", PROTOCOL.index("5", start))]

    assert {n: int(i) for i, n in re.findall(pattern, paragraph)} == get_numbers(names)


def test_the_protocols_kinds_of_output_are_those_of_the_code():
    written = ", ".join(f"{int(k)} {k.name.lower().replace('_', ' ')}" for k in OutputKind)

    assert f"u8 kind ({written})" in PROTOCOL
