"""Which calls go to a cluster now, where a session uses fewer workers than there are."""

import random

from manyhands.engines.cluster.gate import Gate


def test_without_a_limit_all_go() -> None:
    gate = Gate(None)
    assert all(gate.admit(key, 0) for key in range(100))
    assert gate.leave(5) == []


def test_so_many_go_and_the_others_in_their_order() -> None:
    gate = Gate(2)
    assert [gate.admit(key, 0) for key in range(1, 6)] == [True, True, False, False, False]
    assert gate.leave(2) == [3]
    assert gate.leave(1) == [4]
    assert gate.leave(4) == [5]
    assert gate.leave(3) == []
    assert gate.admit(6, 0)


def test_a_higher_priority_goes_first() -> None:
    gate = Gate(1)
    gate.admit(1, 0)
    for key, priority in [(2, -1), (3, 0), (4, 5), (5, 0), (6, 5)]:
        assert not gate.admit(key, priority)
    order = []
    key = 1
    while following := gate.leave(key):
        (key,) = following
        order.append(key)
    assert order == [4, 6, 3, 5, 2]


def test_what_leaves_without_having_gone_lets_nobody_in() -> None:
    gate = Gate(1)
    gate.admit(1, 0)
    gate.admit(2, 0)
    gate.admit(3, 0)
    assert gate.leave(2) == []
    assert gate.leave(99) == []
    assert gate.leave(1) == [3]
    assert gate.leave(1) == []


def test_what_was_withdrawn_does_not_go() -> None:
    gate = Gate(1)
    for key in range(1, 5):
        gate.admit(key, 0)
    gate.withdraw([2, 3, 99])
    gate.withdraw([2])
    assert gate.leave(1) == [4]


def test_to_withdraw_what_has_gone_changes_nothing() -> None:
    gate = Gate(1)
    gate.admit(1, 0)
    gate.admit(2, 0)
    gate.withdraw([1])
    assert not gate.admit(3, 0)
    assert gate.leave(1) == [2]


def test_a_call_may_come_again() -> None:
    """As one does whose first attempt failed."""
    gate = Gate(1)
    assert gate.admit(1, 0)
    gate.admit(2, 0)
    assert gate.leave(1) == [2]
    assert not gate.admit(1, 0)
    assert gate.leave(2) == [1]


def test_places_are_neither_lost_nor_made() -> None:
    chance = random.Random(1)
    for limit in (1, 2, 5):
        gate = Gate(limit)
        inside: set[int] = set()
        waiting: list[tuple[int, int]] = []
        for key in range(1000):
            step = chance.random()
            if step < 0.5:
                priority = chance.randrange(3)
                if gate.admit(key, priority):
                    inside.add(key)
                else:
                    waiting.append((-priority, key))
            elif step < 0.6 and waiting:
                gate.withdraw([waiting.pop(chance.randrange(len(waiting)))[1]])
            elif inside:
                key_out = chance.choice(sorted(inside))
                inside.remove(key_out)
                waiting.sort()
                following = [waiting.pop(0)[1]] if waiting else []
                assert gate.leave(key_out) == following
                inside.update(following)
            assert len(inside) <= limit
            assert not waiting or len(inside) == limit
