"""The directive `contract`: services, messages and enumerations of the contract, with their comments."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

PROTO = Path(__file__).parents[2] / "proto"
SERVICE, MESSAGE, ENUM, SYNTAX = 6, 4, 5, 12
"""Numbers of fields of `FileDescriptorProto`, of which paths in it are made."""
PART = 2
"""The number of a service's methods, a message's fields and an enumeration's values in their descriptors."""
PACKAGE = ".mlrs.v1."


def descriptors(proto: Path = PROTO) -> list[FileDescriptorProto]:
    """Return the files of the contract, with their comments, as buf reads them.

    Raises:
        ExtensionError: buf is missing, or cannot read the contract.
    """
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    if buf is None:
        raise ExtensionError("the contract is read by buf, which is not installed: pip install buf-bin")
    command = [buf, "build", str(proto), "--output", "-#format=binpb"]
    ran = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 # a command of our own
    if ran.returncode:
        raise ExtensionError(f"buf cannot read the contract: {ran.stderr.decode()}")
    files = FileDescriptorSet.FromString(ran.stdout).file
    return [file for file in files if file.package == "mlrs.v1"]


class Comments:
    """The comments of a file, by the path of what they stand above, as Markdown."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._texts = {
            tuple(location.path): "\n\n".join(
                [*location.leading_detached_comments, location.leading_comments]
            )
            for location in file.source_code_info.location
        }

    def of(self, *path: int) -> str:
        """Return the comment above a part; empty where there is none."""
        lines = [line.removeprefix(" ") for line in self._texts.get(path, "").splitlines()]
        return escaped("\n".join(lines).strip())

    def line(self, *path: int) -> str:
        """Return the comment above a part, for a cell of a table."""
        return " ".join(self.of(*path).split()).replace("|", r"\|")


def escaped(text: str) -> str:
    """Return a text with what is no code kept from being read as marks of Markdown."""
    parts = re.split(r"(`[^`]*`)", text)
    for at in range(0, len(parts), 2):
        parts[at] = re.sub(r"(?<!^)(?<!\n)(?<!\n {2})([*<\[])", r"\\\1", parts[at])
    return "".join(parts)


def type_of(field: FieldDescriptorProto) -> str:
    """Return the type of a field, with a link where the contract defines it."""
    many = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    maybe = "optional " if field.proto3_optional else ""
    if not field.type_name:
        kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        return f"{many}{maybe}`{kind}`"
    return f"{many}{maybe}{link(field.type_name)}"


def link(type_name: str) -> str:
    """Return a type by its full name, as a link where the contract defines it."""
    if not type_name.startswith(PACKAGE):
        return f"`{type_name.removeprefix('.')}`"
    name = type_name.removeprefix(PACKAGE)
    return f"[`{name}`](#contract-{name.lower()})"


def heading(level: int, kind: str, name: str) -> Iterator[str]:
    """Yield a heading that links of `link` lead to."""
    yield f"(contract-{name.lower()})="
    yield f"{'#' * level} {kind} {name}\n"


def service(of: ServiceDescriptorProto, comments: Comments, at: int) -> Iterator[str]:
    """Yield a service, with a heading for each call."""
    yield from heading(2, "service", of.name)
    if at == 0:
        yield comments.of(SYNTAX) + "\n"
    yield comments.of(SERVICE, at) + "\n"
    for number, method in enumerate(of.method):
        takes, gives = (
            f"{'stream of ' if streams else ''}{link(kind)}"
            for streams, kind in (
                (method.client_streaming, method.input_type),
                (method.server_streaming, method.output_type),
            )
        )
        yield from heading(3, "rpc", method.name)
        yield f"{takes} → {gives}\n"
        yield comments.of(SERVICE, at, PART, number) + "\n"


def message(of: DescriptorProto, comments: Comments, path: tuple[int, ...], outer: str = "") -> Iterator[str]:
    """Yield a message with its fields, then those inside it."""
    name = f"{outer}{of.name}"
    yield from heading(3, "message", name)
    yield comments.of(*path) + "\n"
    if of.field:
        yield "| field | type | |\n|---|---|---|"
        for number, field in enumerate(of.field):
            words = comments.line(*path, PART, number)
            if field.HasField("oneof_index") and not field.proto3_optional:
                words = f"(one of `{of.oneof_decl[field.oneof_index].name}`) {words}"
            yield f"| `{field.name}` = {field.number} | {type_of(field)} | {words} |"
        yield ""
    for number, inner in enumerate(of.nested_type):
        yield from message(inner, comments, (*path, 3, number), f"{name}.")
    for number, values in enumerate(of.enum_type):
        yield from enumeration(values, comments, (*path, 4, number), f"{name}.")


def enumeration(
    of: EnumDescriptorProto, comments: Comments, path: tuple[int, ...], outer: str = ""
) -> Iterator[str]:
    """Yield an enumeration with its values."""
    yield from heading(3, "enum", f"{outer}{of.name}")
    yield comments.of(*path) + "\n"
    yield "| value | |\n|---|---|"
    for number, value in enumerate(of.value):
        yield f"| `{value.name}` = {value.number} | {comments.line(*path, PART, number)} |"
    yield ""


def contract(files: list[FileDescriptorProto]) -> Iterator[str]:
    """Yield the Markdown of the contract: services first, then files with their messages."""
    services = [file for file in files if file.service]
    for file in sorted(services, key=lambda file: file.name != "mlrs/v1/advisor_service.proto"):
        for at, of in enumerate(file.service):
            yield from service(of, Comments(file), at)
    for file in files:
        comments = Comments(file)
        if file.message_type or file.enum_type:
            yield f"## {file.name.rpartition('/')[2]}\n"
            yield ("" if file.service else comments.of(SYNTAX)) + "\n"
        for at, enum in enumerate(file.enum_type):
            yield from enumeration(enum, comments, (ENUM, at))
        for at, one in enumerate(file.message_type):
            yield from message(one, comments, (MESSAGE, at))


class Contract(SphinxDirective):
    """Shows the contract."""

    def run(self) -> list[nodes.Node]:
        """Return it."""
        for path in sorted((PROTO / "mlrs" / "v1").glob("*.proto")):
            self.env.note_dependency(path)
        text = "\n".join(contract(descriptors()))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Add the directive."""
    app.add_directive("contract", Contract)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
