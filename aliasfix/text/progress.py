"""What long work says of itself on stderr, from its first second: live on a terminal, else in lines."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from aliasfix.text.wording import printable

FIRST, NEXT, LONGEST = 1.0, 5.0, 60.0
"""Seconds until something is said, and where there is no terminal, until the second line and between the later ones."""

_ENOUGH = 10  # units that tell how long one takes


class Work:
    """A piece of work, and how far it is; a piece within another is shown behind it.

    Without `reporting` around, as where Python calls, it shows itself on a terminal and nowhere else.

    Args:
        what: is done.
        total: how many units there are of it, where that is known.
        unit: what is counted.

    >>> with Work("measuring", 2, "network") as outer, Work("shifts", unit="input") as inner:
    ...     inner.advance(8)
    ...     now()
    'measuring: shifts, 8 inputs'
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self.detail, self._start = 0, "", time.monotonic()
        self._shown = contextlib.ExitStack()

    def __enter__(self) -> Work:
        alone = not _here.works and _here.reporter is None
        _here.works.append(self)
        if alone:
            self._shown.enter_context(_Reporter(lines=False))
        return self

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Count more units; ``detail`` is said behind them."""
        self.done, self.detail = self.done + count, detail

    def __exit__(self, *exception: object) -> None:
        self._shown.close()
        _here.works.remove(self)

    @property
    def text(self) -> str:
        """What is done and how far it is, in words."""
        parts = [self.what]
        if self.done or self.detail:
            count = f"{self.done} of {self.total}" if self.total else f"{self.done}" if self.unit else ""
            counted = f"{count} {self.unit}{'s' * (bool(self.unit) and (self.total or self.done) != 1)}".strip()
            parts += [text for text in (counted, self.detail) if text]
            spent = time.monotonic() - self._start
            if self.total and _ENOUGH <= self.done < self.total and spent > NEXT:
                parts.append(f"about {_duration(spent / self.done * (self.total - self.done))} left")
        return ", ".join(parts)


class Course:
    """Work in stages, whose seconds are known about: each says how far the whole is, and the time left.

    What the stages before took tells how fast this machine is.

    Args:
        seconds: by stage, in order, how long it takes on an ordinary machine.

    >>> course = Course({"converting": 5, "measuring": 15})
    >>> course.stage("converting").text
    '[--------------------] 1 of 2, converting, about 20 s left'
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds, self._start = dict(seconds), time.monotonic()

    def stage(self, name: str) -> Work:
        """The stage that begins now, as `reporting` takes it."""
        return _Stage(name, self._seconds, time.monotonic() - self._start)


class _Stage(Work):
    def __init__(self, what: str, seconds: Mapping[str, float], spent: float) -> None:
        super().__init__(what)
        names = list(seconds)
        self._number, self._of = names.index(what) + 1, len(names)
        self._before = sum(list(seconds.values())[: self._number - 1])
        self._own, self._whole = seconds[what], sum(seconds.values())
        self._slower = spent / self._before if self._before else 1.0

    @property
    def text(self) -> str:
        """Which stage it is, how far the whole is, and the time left."""
        expected = self._own * self._slower
        spent = min(time.monotonic() - self._start, 0.95 * expected)  # a stage that takes longer is not over
        share = (self._before + self._own * (spent / expected if expected else 0)) / self._whole
        full = round(_WIDTH * share)
        left = (self._whole - self._before) * self._slower - spent
        bar = f"[{'=' * full}{'-' * (_WIDTH - full)}]"
        return f"{bar} {self._number} of {self._of}, {self.what}, about {_duration(left)} left"


_WIDTH = 20  # characters of a bar


def now() -> str:
    """What is going on in this thread, the outermost piece first."""
    return _in_words(list(_here.works))


def _in_words(works: list[Work]) -> str:
    return ": ".join(work.text for work in works if work is works[0] or work.done or work.detail)


def tell(message: object) -> None:
    """Say something that stays, on the command line only."""
    if _here.reporter is not None and _here.reporter.lines:
        say(message)


def say(message: object) -> None:
    """Write one line to stderr."""
    print(f"aliasfix: {printable(str(message))}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def reporting(what: str | Work, quiet: bool = False) -> Iterator[None]:
    """Say on stderr that something is done, and how far it is, wherever that goes; ``quiet`` says nothing."""
    work = what if isinstance(what, Work) else Work(what)
    _here.works.append(work)
    try:
        with _Reporter(lines=not quiet, silent=quiet):
            yield
    finally:
        _here.works.remove(work)


class _Reporter:
    """Shows what is going on in the thread that made it, from another."""

    def __init__(self, lines: bool, silent: bool = False) -> None:
        from rich.console import Console  # here, so that ``import aliasfix`` is quick

        self.lines, self._works = lines, _here.works
        self._console = Console(stderr=True)
        self._shows = not silent and (lines or self._console.is_terminal)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Reporter:
        self._before, _here.reporter = _here.reporter, self
        if self._shows:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        _here.reporter = self._before
        self._over.set()
        if self._shows:
            self._thread.join()

    def _watch(self) -> None:
        live = self._console.is_terminal
        if live and self.lines:
            self._live()
        elif not self._over.wait(FIRST):
            (self._live if live else self._in_lines)()

    def _text(self) -> str:
        return _in_words(list(self._works))

    def _live(self) -> None:
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        spinner = Spinner("dots")

        def shown() -> Any:
            spinner.update(text=Text(f"{self._text()} …"))
            return spinner

        with Live(get_renderable=shown, console=self._console, transient=True, redirect_stdout=False):
            self._over.wait()

    def _in_lines(self) -> None:
        start, pause = time.monotonic() - FIRST, NEXT
        say(f"{self._text()} …")
        while not self._over.wait(pause):
            say(f"{self._text()} … ({_duration(time.monotonic() - start)})")
            pause = min(LONGEST, 1.5 * pause)


class _Here(threading.local):
    def __init__(self) -> None:
        self.works: list[Work] = []
        self.reporter: _Reporter | None = None


_here = _Here()


def _duration(seconds: float) -> str:
    """A time in words.

    >>> _duration(8), _duration(200), _duration(9000)
    ('8 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
