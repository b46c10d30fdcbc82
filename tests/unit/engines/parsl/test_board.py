"""Which worker is given which call."""

import random

from manyhands.engines.parsl.board import Board


def make_board(*workers: str) -> Board:
    board = Board()
    for worker in workers:
        board.come(worker)
    return board


def test_a_call_waits_until_a_worker_comes() -> None:
    board = Board()
    board.add("a", 0)
    assert board.deal() == []
    assert (board.count_waiting(), board.list_waiting()) == (1, ["a"])
    board.come("w")
    assert board.deal() == [("a", "w", True)]
    assert board.count_waiting() == 0
    assert board.find_workers(["a", "unknown"]) == {"w"}


def test_one_at_a_time_and_the_most_urgent_first() -> None:
    board = make_board("w")
    for call, priority in [("a", 0), ("b", -1), ("c", 5), ("d", 0), ("e", 5)]:
        board.add(call, priority)
    order = []
    while dealt := board.deal():
        ((call, _, _),) = dealt
        order.append(call)
        board.end(call)
    assert order == ["c", "e", "a", "d", "b"]
    assert board.is_idle("w")


def test_what_was_withdrawn_does_not_begin() -> None:
    board = make_board("w")
    for call in "abc":
        board.add(call, 0)
    assert board.deal() == [("a", "w", True)]
    assert board.withdraw(["a", "b", "unknown"]) == {"b"}
    board.end("a")
    assert board.deal() == [("c", "w", True)]


def test_another_call_runs_in_the_place_of_one_that_waits() -> None:
    board = make_board("w")
    board.add("a", 0)
    board.add("b", 0)
    board.deal()
    board.leave("a")
    assert board.deal() == [("b", "w", True)]
    board.enter("a")
    assert board.deal() == []
    board.end("b")
    assert board.deal() == [("a", "w", False)]
    assert not board.is_idle("w")
    board.end("a")
    assert board.is_idle("w")


def test_what_goes_on_is_before_what_begins() -> None:
    board = make_board("w")
    for call in "abc":
        board.add(call, 9)
    board.deal()
    board.leave("a")
    board.deal()
    board.enter("a")
    board.end("b")
    assert board.deal() == [("a", "w", False)]


def test_a_call_that_ends_while_it_waits_for_its_place_does_not_get_it() -> None:
    board = make_board("w")
    board.add("a", 0)
    board.add("b", 0)
    board.deal()
    board.leave("a")
    board.deal()
    board.enter("a")
    board.end("a")
    board.end("b")
    assert board.deal() == []
    assert board.is_idle("w")


def test_new_calls_go_where_the_fewest_wait() -> None:
    board = make_board("w", "v")
    board.add("a", 0)
    ((_, first, _),) = board.deal()
    board.leave("a")
    board.add("b", 0)
    ((_, second, _),) = board.deal()
    assert {first, second} == {"w", "v"}


def test_all_calls_of_a_worker_go_with_it() -> None:
    board = make_board("w")
    board.add("a", 0)
    board.add("b", 0)
    board.deal()
    board.leave("a")
    board.deal()
    board.enter("a")
    assert sorted(board.go("w")) == ["a", "b"]
    assert board.go("w") == []
    assert board.find_workers(["a", "b"]) == set()
    board.end("a")  # it may be told of later
    board.leave("b")
    board.enter("b")
    assert board.deal() == []
    assert not board.is_idle("w")


def test_whatever_happens_no_worker_has_two_and_every_call_ends_once() -> None:
    random_ = random.Random(7)
    for _ in range(50):
        board = make_board("v", "w", "x")
        seats: dict[str, str] = {}
        left: set[str] = set()
        entering: set[str] = set()
        ended: list[str] = []
        for number in range(60):
            board.add(str(number), random_.randrange(3))
        while len(ended) < 60:
            for call, worker, is_new in board.deal():
                assert worker not in seats.values()
                assert is_new != (call in entering)
                entering.discard(call)
                seats[call] = worker
            seated = random_.choice(sorted(seats)) if seats else ""
            if seated and random_.random() < 0.5:
                board.leave(seated)
                del seats[seated]
                left.add(seated)
            elif seated:
                board.end(seated)
                del seats[seated]
                ended.append(seated)
            if left and (random_.random() < 0.5 or not seated):
                waiting = random_.choice(sorted(left))
                left.discard(waiting)
                entering.add(waiting)
                board.enter(waiting)
        assert sorted(ended, key=int) == [str(number) for number in range(60)]
        assert all(board.is_idle(worker) for worker in "vwx")


def test_with_patience_nothing_begins_beside_calls_that_wait() -> None:
    board = make_board("w")
    board.add("a", 0)
    board.add("b", 0)
    assert board.deal(is_patient=True) == [("a", "w", True)]
    board.leave("a")
    assert board.deal(is_patient=True) == []
    board.enter("a")
    assert board.deal(is_patient=True) == [("a", "w", False)]
    board.leave("a")
    board.come("v")
    assert board.deal(is_patient=True) == [("b", "v", True)]
