"""Text from elsewhere, made safe for a terminal."""

from __future__ import annotations


def shown(text: str, *, keep: str = "") -> str:
    r"""Return text in which what could control a terminal, or hide, is written out, such as `\x1b`.

    Args:
        text: text of whatever source.
        keep: characters to keep besides printable ones.
    """
    return "".join(one if one.isprintable() or one in keep else _written(one) for one in text)


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
