"""Which addresses of a heap are taken."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manyhands.engines.local.space import PAGE, Space, round_up

sizes = st.integers(0, 40 * PAGE) | st.sampled_from([0, 1, PAGE - 1, PAGE, PAGE + 1, 64 * PAGE])


def take(space: Space, size: int) -> tuple[int, bool]:
    found = space.take(size)
    assert found is not None
    space.validate()
    return found


@given(st.integers(0, 2**44), st.integers(0, 2**44))
def test_blocks_are_pages_and_little_larger_than_asked(one: int, other: int) -> None:
    span = round_up(one)
    assert span % PAGE == 0
    assert span >= max(one, 1)
    assert span <= one * 1.25 + PAGE
    assert round_up(span) == span, "rounding again changes nothing"
    if one <= other:
        assert span <= round_up(other)


def test_sizes_come_in_few_classes() -> None:
    assert len({round_up(size) for size in range(1, 1 << 20, 512)}) < 40


def test_a_new_space_is_cold() -> None:
    space = Space(1 << 20)
    assert take(space, 100) == (0, False)
    assert take(space, 0) == (PAGE, False)
    assert (space.live, space.warm) == (2 * PAGE, 0)


def test_what_is_given_back_is_warm_and_used_first() -> None:
    space = Space(1 << 20)
    first, second = take(space, 10_000)[0], take(space, 10_000)[0]
    space.give(first)
    assert (space.live, space.warm) == (3 * PAGE, 3 * PAGE)
    assert space.would_be_warm(10_000)
    assert take(space, 9000) == (first, True)
    space.give(second)
    space.give(first)
    assert take(space, 9000)[0] == first, "the last one is the warmest in the processor's caches"


def test_only_what_has_all_its_pages_is_warm() -> None:
    space = Space(1 << 24)
    small, large = 21 * PAGE, 24 * PAGE
    assert round_up(small) == round_up(large)
    start, _ = take(space, small)
    space.give(start)
    assert not space.would_be_warm(large)
    assert take(space, large) == (start, False)
    assert space.live == large
    space.give(start)
    assert space.would_be_warm(large) and space.would_be_warm(small)
    assert take(space, small) == (start, True)
    assert space.live == large, "the pages of the larger value are still there"


def test_a_block_of_another_size_is_not_used() -> None:
    space = Space(1 << 20)
    start, _ = take(space, 10 * PAGE)
    space.give(start)
    assert not space.would_be_warm(PAGE)
    assert take(space, PAGE) == (10 * PAGE, False)


def test_chilling_takes_the_oldest_first() -> None:
    space = Space(1 << 20)
    starts = [take(space, 3 * PAGE)[0] for _ in range(4)]
    for start in (starts[2], starts[0], starts[3]):
        space.give(start)
    assert space.chill(6 * PAGE) == [(starts[2], 3 * PAGE)]
    assert space.chill(6 * PAGE) == []
    assert space.chill(0) == [(starts[0], 3 * PAGE), (starts[3], 3 * PAGE)]
    space.validate()
    assert space.warm == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0)])
def test_holes_join(order: tuple[int, ...]) -> None:
    space = Space(12 * PAGE)
    starts = [take(space, 4 * PAGE)[0] for _ in range(3)]
    assert space.take(1) is None
    for index in order:
        space.give(starts[index])
        space.chill(0)
        space.validate()
    assert take(space, 12 * PAGE) == (0, False)


def test_a_hole_between_values_is_used() -> None:
    space = Space(16 * PAGE)
    starts = [take(space, 4 * PAGE)[0] for _ in range(4)]
    space.give_cold(starts[1])
    space.give_cold(starts[2])
    space.validate()
    assert take(space, 7 * PAGE) == (starts[1], False)
    assert take(space, PAGE) == (starts[1] + 7 * PAGE, False)
    assert space.take(1) is None


def test_warm_blocks_are_not_holes() -> None:
    space = Space(8 * PAGE)
    start, _ = take(space, 8 * PAGE)
    space.give(start)
    assert space.take(PAGE) is None
    space.chill(0)
    assert space.take(PAGE) == (0, False)


def test_a_block_is_given_back_once() -> None:
    space = Space(1 << 20)
    start, _ = take(space, 1)
    space.give(start)
    with pytest.raises(KeyError):
        space.give(start)
    with pytest.raises(KeyError):
        space.give_cold(start)
    with pytest.raises(KeyError):
        space.give(12345)
    space.validate()


def test_there_is_no_room_for_what_is_larger_than_all() -> None:
    space = Space(1 << 20)
    assert space.take((1 << 20) + 1) is None
    assert space.take(1 << 20) == (0, False)


def test_blocks_in_use_are_listed() -> None:
    space = Space(1 << 20)
    take(space, 5000)
    start, _ = take(space, 1)
    take(space, 1)
    space.give(start)
    assert space.list_blocks() == [(0, 2 * PAGE), (start + PAGE, PAGE)]


class Laying(RuleBasedStateMachine):
    """Values come and go; what is in use never overlaps, and pages are where the space says."""

    size = 200 * PAGE

    def __init__(self) -> None:
        super().__init__()
        self.space = Space(self.size)
        self.values: dict[int, int] = {}
        self.pages: set[int] = set()  # that were touched and not given back

    @rule(size=sizes)
    def take(self, size: int) -> None:
        would = self.space.would_be_warm(size)
        found = self.space.take(size)
        if found is None:
            assert not would
            return
        start, is_warm = found
        assert is_warm == would or size == 0
        assert start % PAGE == 0
        assert 0 <= start <= self.size - size
        for other, length in self.values.items():
            assert start >= other + length or start + max(size, 1) <= other
        pages = {start // PAGE + i for i in range(-(-max(size, 1) // PAGE))}
        if is_warm:
            assert pages <= self.pages
        self.pages |= pages
        self.values[start] = max(size, 1)

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from(sorted(self.values)))
        del self.values[start]
        self.space.give(start)

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def give_cold(self, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from(sorted(self.values)))
        touched = dict(self.space.list_blocks())[start]
        del self.values[start]
        self.pages -= {start // PAGE + i for i in range(touched // PAGE)}
        self.space.give_cold(start)

    @rule(keep=st.integers(0, 100 * PAGE))
    def chill(self, keep: int) -> None:
        for start, length in self.space.chill(keep):
            pages = {start // PAGE + i for i in range(length // PAGE)}
            for other, size in self.values.items():
                used = {other // PAGE + i for i in range(-(-size // PAGE))}
                assert not used & pages, "pages in use were given back"
            self.pages -= pages
        assert self.space.warm <= keep

    @invariant()
    def accounts_are_right(self) -> None:
        self.space.validate()
        assert (self.space.live + self.space.warm) // PAGE == len(self.pages)
        assert {start for start, _ in self.space.list_blocks()} == set(self.values)

    def teardown(self) -> None:
        for start in list(self.values):
            self.space.give(start)
        self.space.chill(0)
        self.space.validate()
        assert self.space.take(round_up(self.size // 2)) == (0, False), "all is one piece again"


TestLaying = Laying.TestCase
TestLaying.settings = settings(max_examples=60, stateful_step_count=40)
