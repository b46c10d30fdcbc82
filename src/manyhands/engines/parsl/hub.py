"""In the program: what goes on between a session and the workers that visit it."""

from __future__ import annotations

import threading
from functools import partial
from itertools import count
from time import monotonic

from manyhands.engines.cluster.versions import explain_difference
from manyhands.engines.parsl.board import Board
from manyhands.engines.parsl.handle import Ending
from manyhands.engines.parsl.wire import Hands
from manyhands.errors import WorkerDiedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from manyhands.engines.cluster.task import Settings, Task
    from manyhands.engines.parsl.files import Token
    from manyhands.engines.parsl.handle import Hello
    from manyhands.engines.parsl.visits import Visits
    from manyhands.engines.parsl.wire import Wire

ANSWER_SECONDS = 1.0
"""How long workers have to answer: at once, unless native code keeps Python from running there at all."""

_TICK_SECONDS = 0.5

_SUSPECT_SECONDS = 1.0
_SUSPECT_TICK = 0.02
"""After a connection has ended: how long, and how often, workers are tried; ZeroMQ does not say whose it was."""

_TARGETED = {"withdraw", "interrupt", "grant"}
"""What only those stations are asked that are at the calls in question."""


class _Order:
    """A call that is under way.

    Attributes
    ----------
    task, values
        As it is sent; they keep the files that they refer to.
    owner
        The worker whose call made it; empty where the program did.
    followers
        Those that are told of its end, by themselves or, in workers, by their names.
    """

    __slots__ = ("ending", "followers", "owner", "task", "values")

    def __init__(self, task: Task, values: list[Any], owner: str) -> None:
        self.task: Task | None = task
        self.values = values
        self.owner = owner
        self.followers: list[Callable[[Ending], None] | str] = []
        self.ending: Ending | None = None


class _Guest:
    """A worker that has come.

    Attributes
    ----------
    kept
        Tokens of files that it needs.
    orders
        Calls that calls there have made, and may still ask for.
    topics
        Of sessions there.
    idle_since
        When it had a call, or came, last.
    """

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.kept: dict[str, Token] = {}
        self.orders: set[str] = set()
        self.topics: set[str] = set()
        self.idle_since = 0.0


class _Question:
    """What several stations are asked."""

    def __init__(self, asked: set[str], on_done: Callable[[list[Any]], None]) -> None:
        self.asked = asked
        self.answers: list[Any] = []
        self.on_done = on_done
        self.deadline = monotonic() + ANSWER_SECONDS


class Hub:
    """Gives calls to workers, and passes on what they say.

    Parameters
    ----------
    settings
    visits
        Has workers come.
    take
        Called with the messages to the program's session, one after the other.
    idle_seconds
        After which a worker that has nothing to do goes.
    """

    def __init__(
        self,
        settings: Settings,
        visits: Visits,
        take: Callable[..., None],
        idle_seconds: float,
    ) -> None:
        self._settings = settings
        self._visits = visits
        self._take = take
        self._idle_seconds = idle_seconds
        self._hands = Hands()
        self._lock = threading.RLock()
        self._board = Board()
        self._orders: dict[str, _Order] = {}
        self._guests: dict[str, _Guest] = {}
        self._topics: dict[str, str] = {}
        self._questions: dict[int, _Question] = {}
        self._numbers = count(1)
        self._suspect_until = 0.0
        self._next_tick = 0.0
        self._trouble = ""
        self._is_closed = False
        self.has_first = threading.Event()
        """Set when the first worker has come, or cannot."""
        self.sees_folder = False
        """Whether that sees the folder of values."""

    def open(self, wire: Wire) -> None:
        """Use a wire from now on, whose messages `take_message` is given."""
        self._wire = wire

    @property
    def trouble(self) -> str:
        """Why nothing can be run any more; empty where it can."""
        return self._trouble

    # What sessions want.

    def launch(
        self,
        task: Task,
        values: list[Any],
        priority: int,
        follower: Callable[[Ending], None] | str,
        owner: str = "",
    ) -> None:
        """Have a call run.

        Raises
        ------
        WorkerDiedError
        """
        with self._lock:
            if self._trouble:
                raise WorkerDiedError(self._trouble)
            order = self._orders[task.id] = _Order(task, values, owner)
            order.followers.append(follower)
            self._board.add(task.id, priority)
            self._deal()

    def follow(self, name: str, follower: Callable[[Ending], None] | str) -> None:
        """Be told of the end of a call that another session has made."""
        with self._lock:
            order = self._orders.get(name)
            if order is not None and order.ending is None:
                order.followers.append(follower)
                return
            ending = order.ending if order is not None else None
        if ending is None:
            ending = Ending(loss="the worker whose call has made it has ended")
        self._tell(name, ending, follower)

    def drop(self, names: Iterable[str]) -> None:
        """Nobody wants these calls any more."""
        with self._lock:
            for name in self._board.withdraw(names):
                del self._orders[name]
            for name in names:
                order = self._orders.get(name)
                if order is not None:
                    order.followers.clear()

    def ask(self, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> list[Any]:
        """Have stations call a method; what those answer that do so soon."""
        done = threading.Event()
        found: list[Any] = []

        def take(answers: list[Any]) -> None:
            found.extend(answers)
            done.set()

        self.ask_for(method, args, options, take)
        done.wait(2 * ANSWER_SECONDS)
        return found

    def ask_for(
        self,
        method: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        on_done: Callable[[list[Any]], None],
    ) -> None:
        """The same for those that must not wait; `on_done` is called in the thread of the wire, or in this one."""
        with self._lock:
            if method == "withdraw":
                for name in self._board.withdraw(args[0]):
                    del self._orders[name]
            asked = set(self._guests)
            if method in _TARGETED:
                asked &= self._board.find_workers([args[0]] if method == "grant" else args[0])
            number = next(self._numbers)
            if asked and not self._is_closed:
                self._questions[number] = _Question(asked, on_done)
                for name in asked:
                    self._send(name, "question", number, method, args, options)
                return
        on_done([])

    def close(self) -> None:
        """Send everybody away; what runs is interrupted."""
        with self._lock:
            self._is_closed = True
            for name in self._guests:
                self._send(name, "over")

    def end(self) -> None:
        """The same without those that have not gone by now."""
        self._wire.close()
        self._hands.close()

    # Messages.

    def take_message(self, identity: bytes, message: tuple[Any, ...]) -> None:
        """In the thread of the wire: what a worker says."""
        kind, *fields = message
        name = identity.decode()
        with self._lock:
            if kind == "hello":
                self._greet(identity, *fields)
            elif name in self._guests:
                getattr(self, f"_take_{kind}")(name, *fields)

    def _greet(self, identity: bytes, hello: Hello) -> None:
        difference = explain_difference(hello.versions)
        if difference is None and self.has_first.is_set() and self.sees_folder > hello.sees_folder:
            difference = "it does not see the folder of values, which others see; use one that all nodes share"
        if difference is not None:
            self._wire.send(("refused",), identity)
            self.refuse(f"the Parsl worker {hello.name}: {difference}")
            return
        if not self.has_first.is_set():
            self.sees_folder = hello.sees_folder
            self.has_first.set()
        self._guests[hello.name] = _Guest(identity)
        self._send(hello.name, "welcome", self._settings, self.sees_folder)
        if self._is_closed:
            self._send(hello.name, "over")

    def _take_visit(self, name: str, number: int) -> None:
        self._visits.take_arrival(number, name)
        self._guests[name].idle_since = monotonic()
        self._board.come(name)
        self._deal()

    def _take_post(self, name: str, topic: str, message: tuple[Any, ...]) -> None:  # noqa: ARG002 - of whomever
        if topic == self._settings.session:
            self._hands.do(partial(self._take, *message))
        elif topic in self._topics:
            self._send(self._topics[topic], "post", topic, message)

    def _take_left(self, name: str, call: str) -> None:  # noqa: ARG002
        self._board.leave(call)
        self._deal()

    def _take_enter(self, name: str, call: str) -> None:  # noqa: ARG002
        self._board.enter(call)
        self._deal()

    def _take_ended(self, name: str, call: str, ending: Ending) -> None:
        self._board.end(call)
        guest = self._guests[name]
        guest.idle_since = monotonic()
        self._end(call, ending)
        self._deal()

    def _take_answer(self, name: str, number: int, answer: Any) -> None:
        question = self._questions.get(number)
        if question is not None:
            if answer is not None:
                question.answers.append(answer)
            self._strike(number, question, name)

    def _take_keep(self, name: str, token: Token) -> None:
        self._guests[name].kept[token.name] = token

    def _take_release(self, name: str, token: str) -> None:
        self._guests[name].kept.pop(token, None)

    def _take_sync(self, name: str, number: int) -> None:
        self._send(name, "synced", number)

    # Of sessions in workers.

    def _take_open(self, name: str, topic: str) -> None:
        self._guests[name].topics.add(topic)
        self._topics[topic] = name

    def _take_shut(self, name: str, topic: str) -> None:
        self._guests[name].topics.discard(topic)
        self._topics.pop(topic, None)

    def _take_launch(self, name: str, task: Task, values: list[Any], priority: int) -> None:
        self._guests[name].orders.add(task.id)
        try:
            self.launch(task, values, priority, name, owner=name)
        except WorkerDiedError as error:
            self._tell(task.id, Ending(trouble=str(error)), name)

    def _take_follow(self, name: str, call: str) -> None:
        self.follow(call, name)

    def _take_drop(self, name: str, calls: list[str]) -> None:  # noqa: ARG002
        self.drop(calls)

    def _take_forget(self, name: str, call: str) -> None:
        self._guests[name].orders.discard(call)
        order = self._orders.get(call)
        if order is not None and order.owner == name:
            order.owner = ""
            if order.ending is not None:
                del self._orders[call]

    def _take_ask(self, name: str, number: int, method: str, args: Any, options: Any) -> None:
        self.ask_for(method, args, options, partial(self._send, name, "answers", number))

    # The ends of calls.

    def _end(self, name: str, ending: Ending) -> None:
        order = self._orders.get(name)
        if order is None or order.ending is not None:
            return
        order.ending = ending
        order.task = None
        order.values = []
        if not order.owner:  # nobody else will ask for it
            del self._orders[name]
        for follower in order.followers:
            self._tell(name, ending, follower)
        order.followers.clear()

    def _tell(self, name: str, ending: Ending, follower: Callable[[Ending], None] | str) -> None:
        if isinstance(follower, str):
            self._send(follower, "ended", name, ending)
        else:
            self._hands.do(partial(follower, ending))

    # Workers.

    def lose(self, name: str, reason: str) -> None:
        """A worker has ended, and its calls with it."""
        with self._lock:
            guest = self._guests.pop(name, None)
            if guest is None:
                return
            self._visits.take_loss(name)
            for topic in guest.topics:
                self._topics.pop(topic, None)
            for number, question in list(self._questions.items()):
                self._strike(number, question, name)
            for call in self._board.go(name):
                self._end(call, Ending(loss=reason, worker=name))
            for call in guest.orders:
                self._disown(call, name)
            self._deal()

    def _disown(self, call: str, owner: str) -> None:
        """The session that has made a call is lost; others may follow the call."""
        order = self._orders.get(call)
        if order is None:
            return
        order.owner = ""
        order.followers = [follower for follower in order.followers if follower != owner]
        if order.ending is not None:
            del self._orders[call]
        elif not order.followers:
            if self._board.withdraw([call]):
                del self._orders[call]
            for worker in self._board.find_workers([call]):
                self._send(worker, "question", 0, "interrupt", ([call],), {})

    def refuse(self, reason: str) -> None:
        """Workers come and are of no use: calls that wait for one fail."""
        with self._lock:
            if not self.has_first.is_set():
                self._trouble = reason
                self.has_first.set()
            waiting = self._board.list_waiting()
            self._board.withdraw(waiting)
            for call in waiting:
                self._end(call, Ending(trouble=reason))

    def break_down(self, reason: str) -> None:
        """Nothing can be run any more: all calls fail."""
        with self._lock:
            if self._trouble or self._is_closed:
                return
            self._trouble = reason
            self.has_first.set()
            for call in list(self._orders):
                self._board.withdraw([call])
                self._end(call, Ending(trouble=reason))

    def deal(self) -> None:
        """A worker has gone, and another one may come."""
        with self._lock:
            self._deal()

    def _deal(self) -> None:
        self._hand_out(self._board.deal(is_patient=True))
        waiting = self._board.count_waiting()
        if not waiting or self._is_closed or self._trouble:
            return
        self._visits.want(waiting)
        if not self._visits.are_near():
            self._hand_out(self._board.deal())

    def _hand_out(self, dealt: list[tuple[str, str, bool]]) -> None:
        for call, name, is_new in dealt:
            order = self._orders.get(call)
            if not is_new:
                self._send(name, "place", call)
            elif order is not None and order.task is not None:
                self._send(name, "call", order.task, order.values)

    # Time.

    def take_cut(self) -> None:
        """A connection has ended."""
        self._suspect_until = monotonic() + _SUSPECT_SECONDS
        self._next_tick = 0.0

    def take_unreachable(self, identity: bytes) -> None:
        """A worker cannot be reached."""
        self.lose(identity.decode(), "its connection has ended, and most likely its process")

    def tick(self) -> float:
        """What time brings; after how many seconds again."""
        now = monotonic()
        if now < self._next_tick:
            return self._next_tick - now
        pause = _SUSPECT_TICK if now < self._suspect_until else _TICK_SECONDS
        self._next_tick = now + pause
        with self._lock:
            for number, question in list(self._questions.items()):
                if now > question.deadline:
                    self._close_question(number, question)
            for name, guest in list(self._guests.items()):
                self._send(name, "ping")
                if not self._board.is_idle(name):
                    guest.idle_since = now
                elif now - guest.idle_since > self._idle_seconds:
                    self._board.go(name)
                    self._send(name, "home")
            self._deal()
            waiting = self._board.count_waiting()
        trouble = self._visits.find_trouble(waiting)
        if trouble:
            self.break_down(trouble)
        return pause

    def _strike(self, number: int, question: _Question, name: str) -> None:
        question.asked.discard(name)
        if not question.asked:
            self._close_question(number, question)

    def _close_question(self, number: int, question: _Question) -> None:
        if self._questions.pop(number, None) is not None:
            question.on_done(question.answers)

    def _send(self, name: str, *message: Any) -> None:
        guest = self._guests.get(name)
        if guest is not None:
            self._wire.send(message, guest.identity)
