"""How things are put to the user: in one line."""

import textwrap
from collections.abc import Collection


def one_line(error: BaseException) -> str:
    r"""An exception in one line.

    >>> one_line(ValueError("no such thing\n\nin the following"))
    'ValueError: no such thing'
    >>> one_line(RuntimeError("cannot load:\n\tno such key\n\tno other key"))
    'RuntimeError: cannot load: no such key'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return textwrap.shorten(": ".join(filter(None, [type(error).__name__, told])), 160, placeholder=" …")


def listing(items: Collection[str], limit: int = 3) -> str:
    """The first few of many.

    >>> listing(["a", "b", "c", "d", "e"])
    'a, b, c, …'
    """
    return ", ".join([*list(items)[:limit], *(["…"] if len(items) > limit else [])])


def printable(text: str) -> str:
    r"""A text without characters that move the cursor or change colours, which files may put into names.

    >>> printable("layer.\x1b[31m\n")
    'layer.\\x1b[31m\\n'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
