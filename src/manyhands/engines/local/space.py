"""Pure: which addresses of a heap are taken. No memory, no file, no lock.

A block that is given back stays *warm*: its pages are there, and the next value of about its size is written to them
at once, several times quicker than to pages that the kernel has to clear first. *Chilled*, its pages go back to
the system, and its addresses can be joined with their neighbours'.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict

PAGE = 4096
"""Bytes at which blocks begin and end, so that the pages of each can be given back."""

_CLASSES = 4
"""Block sizes between a power of two and the next. What is rounded up to are addresses, not pages in use."""


def round_up(size: int) -> int:
    """The addresses that a block of `size` bytes takes.

    Examples
    --------
    >>> round_up(1), round_up(5000), round_up(100_000)
    (4096, 8192, 114688)
    """
    pages = max(1, -(-size // PAGE))
    step = 1 << max(0, pages.bit_length() - 1 - _CLASSES.bit_length() + 1)
    return -(-pages // step) * step * PAGE


class Space:
    """The addresses from 0 to `size`.

    Attributes
    ----------
    size : int
        Bytes of address space.
    live, warm : int
        Bytes with pages behind them: of blocks in use, and of blocks given back and not chilled.

    Examples
    --------
    >>> space = Space(1 << 20)
    >>> space.take(5000)
    (0, False)
    >>> space.give(0)
    >>> space.take(5000)
    (0, True)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.live = 0
        self.warm = 0
        self._blocks: dict[int, tuple[int, int]] = {}  # start -> addresses, bytes with pages
        self._warm: OrderedDict[int, tuple[int, int]] = OrderedDict()  # the same, oldest first
        self._by_span: dict[int, OrderedDict[int, None]] = {}
        self._holes: list[int] = []  # starts, in order
        self._hole_sizes: dict[int, int] = {}
        self._end = 0  # all addresses above have never been used

    def take(self, size: int) -> tuple[int, bool] | None:
        """A block for `size` bytes.

        Returns
        -------
        tuple of (int, bool) or None
            Where it starts, and whether all its pages are there; None where no addresses are left.
        """
        span = round_up(size)
        touched = -(-max(size, 1) // PAGE) * PAGE
        is_warm = False
        known = self._by_span.get(span)
        if known:
            start, _ = known.popitem()
            _, before = self._warm.pop(start)
            self.warm -= before
            is_warm = before >= touched
            touched = max(before, touched)
        else:
            found = self._take_cold(span)
            if found is None:
                return None
            start = found
        self._blocks[start] = (span, touched)
        self.live += touched
        return start, is_warm

    def give(self, start: int) -> None:
        """Give back the block that starts there; it stays warm."""
        span, touched = self._blocks.pop(start)
        self.live -= touched
        self.warm += touched
        self._warm[start] = (span, touched)
        self._by_span.setdefault(span, OrderedDict())[start] = None

    def void(self, start: int) -> None:
        """The block that starts there has no pages."""
        span, touched = self._blocks[start]
        self._blocks[start] = (span, 0)
        self.live -= touched

    def give_cold(self, start: int) -> None:
        """Give back a block whose pages are gone already."""
        span, touched = self._blocks.pop(start)
        self.live -= touched
        self._add_hole(start, span)

    def chill(self, keep: int) -> list[tuple[int, int]]:
        """Have no more than `keep` bytes warm.

        Returns
        -------
        list of (int, int)
            Start and length of what is cold from now on; the caller gives its pages back.
        """
        chilled = []
        while self.warm > keep:
            start, (span, touched) = self._warm.popitem(last=False)
            del self._by_span[span][start]
            self.warm -= touched
            self._add_hole(start, span)
            chilled.append((start, touched))
        return chilled

    def would_be_warm(self, size: int) -> bool:
        """Whether a block for `size` bytes is there without taking more pages."""
        known = self._by_span.get(round_up(size))
        return known is not None and bool(known) and self._warm[next(reversed(known))][1] >= size

    def list_blocks(self) -> list[tuple[int, int]]:
        """Start and bytes with pages of every block in use."""
        return [(start, touched) for start, (_, touched) in self._blocks.items()]

    def validate(self) -> None:
        """Raise AssertionError unless every address is in one place; for tests."""
        parts = [(start, span) for start, (span, _) in self._blocks.items()]
        parts += [(start, span) for start, (span, _) in self._warm.items()]
        parts += self._hole_sizes.items()
        end = 0
        for start, span in sorted(parts):
            assert start == end, (start, end)
            end = start + span
        assert end == self._end <= self.size
        assert self._holes == sorted(self._hole_sizes)
        assert self.live == sum(touched for _, touched in self._blocks.values())
        assert self.warm == sum(touched for _, touched in self._warm.values())
        assert sorted(start for known in self._by_span.values() for start in known) == sorted(
            self._warm
        )

    def _take_cold(self, span: int) -> int | None:
        for place, start in enumerate(self._holes):
            size = self._hole_sizes[start]
            if size >= span:
                del self._holes[place]
                del self._hole_sizes[start]
                if size > span:
                    self._holes.insert(place, start + span)
                    self._hole_sizes[start + span] = size - span
                return start
        if self._end + span > self.size:
            return None
        start, self._end = self._end, self._end + span
        return start

    def _add_hole(self, start: int, size: int) -> None:
        """Join addresses with the free ones before and after them."""
        place = bisect_left(self._holes, start)
        if place < len(self._holes) and self._holes[place] == start + size:
            size += self._hole_sizes.pop(self._holes.pop(place))
        if place and self._holes[place - 1] + self._hole_sizes[self._holes[place - 1]] == start:
            start = self._holes[place - 1]
            self._hole_sizes[start] += size
        else:
            self._holes.insert(place, start)
            self._hole_sizes[start] = size
        if start + self._hole_sizes[start] == self._end:
            self._end = start
            del self._holes[bisect_left(self._holes, start)]
            del self._hole_sizes[start]
