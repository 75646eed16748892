"""The documents as a reader meets them: paragraphs, tables, blocks, what is code in them, where links lead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted((ROOT / "engines").glob("*/card.md"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CARDS, ROOT / "CONTRIBUTING.md"]


@dataclass(frozen=True)
class Piece:
    """A paragraph, list item, table, comment or block of a document.

    ``kind``: text, table, comment, fence (in backticks: shown as a block that is run) or indented. ``section`` is the
    number of the heading above it. ``prose`` is its text without code, ``spans`` the code in its lines, ``links`` the
    files it leads to, ``content`` all of it as it stands; ``rows`` the cells of a table, the heading first;
    ``language`` that of a fence.
    """

    document: Path
    kind: str
    line: int
    section: int
    prose: str = ""
    spans: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    content: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    language: str = ""

    @property
    def place(self) -> str:
        """File and line, as an editor takes them."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@cache
def pieces(document: Path) -> tuple[Piece, ...]:
    """All pieces of a document, in order."""
    return tuple(_pieces(document))


def _pieces(document: Path) -> Iterator[Piece]:
    tokens = MarkdownIt("commonmark").enable("table").parse(document.read_text(encoding="utf-8"))
    section, position = 0, 0
    while position < len(tokens):
        token = tokens[position]
        line = token.map[0] + 1 if token.map else 0
        if token.type == "heading_open":
            section += 1
            position += 2
        elif token.type in ("fence", "code_block"):
            kind = "fence" if token.type == "fence" else "indented"
            yield Piece(document, kind, line, section, content=token.content, language=token.info)
        elif token.type == "html_block":
            yield Piece(document, "comment", line, section, content=token.content.strip())
        elif token.type == "table_open":
            end = next(place for place in range(position, len(tokens)) if tokens[place].type == "table_close")
            yield _of_lines(document, "table", line, section, tokens[position:end])
            position = end
        elif token.type == "inline":
            yield _of_lines(document, "text", line, section, [token])
        position += 1


def _of_lines(document: Path, kind: str, line: int, section: int, tokens: list[Token]) -> Piece:
    inline = [token for token in tokens if token.type == "inline"]
    children = [child for token in inline for child in token.children or ()]
    return Piece(
        document,
        kind,
        line,
        section,
        prose="\n".join(_prose(token) for token in inline),
        spans=tuple(child.content for child in children if child.type == "code_inline"),
        links=tuple(str(child.attrs["href"]) for child in children if child.type == "link_open"),
        content="\n".join(token.content for token in inline),
        rows=tuple(_rows(tokens)),
    )


def _prose(token: Token) -> str:
    """What an inline token says without its code, which leaves a backtick behind."""
    plain = {"text": lambda child: child.content, "code_inline": lambda _: "`", "softbreak": lambda _: "\n"}
    return "".join(plain[child.type](child) for child in token.children or () if child.type in plain)


def _rows(tokens: list[Token]) -> Iterator[tuple[str, ...]]:
    starts = [place for place, token in enumerate(tokens) if token.type == "tr_open"]
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=False):
        yield tuple(_prose(token) for token in tokens[start:end] if token.type == "inline")
