"""What calls need, and what a session has of it."""

import copy
import pickle
import sys
import threading
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manyhands.core.resources import ONE_CPU, SHARES, Capacity, Need, make_need
from manyhands.errors import InvalidArgumentError

GB = 10**9

# --- needs ------------------------------------------------------------------------


def test_the_default_is_one_cpu() -> None:
    need = make_need()
    assert need is ONE_CPU
    assert (need.cpus, need.gpus, need.memory, need.named) == (1, 0, 0, ())
    assert need.is_plain


def test_equal_needs_are_one_object() -> None:
    assert make_need(cpus=1.0, gpus=0.0, memory=0, resources={}) is ONE_CPU
    assert make_need(memory="2GB") is make_need(memory=2 * GB)
    assert make_need(memory="2GB") is not make_need(memory="3GB")
    one = make_need(resources={"b": 2, "a": 1, "c": 0})
    assert one is make_need(resources={"a": 1.0, "b": 2})
    assert one.named == (("a", 1), ("b", 2))
    assert not one.is_plain
    assert make_need(cpus=1 / 3) is make_need(cpus=0.3333)
    assert len({one, make_need(resources={"a": 1, "b": 2}), ONE_CPU}) == 2


def test_a_need_stays_one_object_in_a_pickle_and_in_a_copy() -> None:
    for need in (ONE_CPU, make_need(cpus=1 / 3, gpus=0.25, memory="1 MiB", resources={"x": 0.1})):
        assert pickle.loads(pickle.dumps(need)) is need
        assert copy.copy(need) is need
        assert copy.deepcopy(need) is need


def test_threads_that_make_the_same_need_get_the_same_one() -> None:
    made: list[Need] = []
    gate = threading.Barrier(8)

    def make() -> None:
        gate.wait()
        made.extend(make_need(memory=size) for size in range(777_000, 777_200))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len({id(need) for need in made}) == 200


def test_a_need_does_not_change() -> None:
    need = make_need(cpus=2)
    with pytest.raises(AttributeError, match=r"make_need\(cpus="):
        need.cpus = 3
    with pytest.raises(AttributeError):
        del need.cpus
    with pytest.raises(AttributeError):
        need.other = 3  # type: ignore[attr-defined]
    assert need.cpus == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "1 cpu"),
        ({"cpus": 0}, "nothing"),
        ({"cpus": 4}, "4 cpus"),
        ({"cpus": 0.5}, "0.5 cpu"),
        ({"cpus": 2.5}, "2.5 cpus"),
        ({"gpus": 2}, "1 cpu, 2 gpus"),
        ({"cpus": 0, "memory": "1.5 GB"}, "1.5 GB of memory"),
        ({"cpus": 0, "memory": "512 MiB"}, "512 MiB of memory"),
        ({"cpus": 0, "memory": 2**30}, "1 GiB of memory"),
        ({"cpus": 0, "memory": 12_345_678}, "11.8 MiB of memory"),
        ({"cpus": 0, "memory": 12}, "12 B of memory"),
        (
            {"gpus": 0.5, "memory": "2GB", "resources": {"licence": 1, "disk": 0.25}},
            "1 cpu, 0.5 gpu, 2 GB of memory, 0.25 disk, 1 licence",
        ),
    ],
)
def test_a_need_is_described(options: dict[str, Any], text: str) -> None:
    assert make_need(**options).describe() == text
    assert repr(make_need(**options)) == f"<need: {text}>"


def test_numbers_of_numpy_are_numbers() -> None:
    assert make_need(cpus=np.int64(2)) is make_need(cpus=2)  # type: ignore[arg-type]
    assert make_need(cpus=np.float64(0.5)) is make_need(cpus=0.5)


NO_AMOUNTS = [-1, -0.5, True, False, float("nan"), float("inf"), -float("inf"), "1", None, 1j, [1]]


@pytest.mark.parametrize(
    "amount", [*NO_AMOUNTS, Fraction(1, 2), np.bool_(True), np.ones(2)], ids=repr
)
@pytest.mark.parametrize("option", ["cpus", "gpus", "resources"])
def test_what_is_no_amount_is_refused(option: str, amount: Any) -> None:
    value = {"licence": amount} if option == "resources" else amount
    with pytest.raises(InvalidArgumentError) as caught:
        make_need(**{option: value})
    assert str(caught.value) == f"{option}={value!r}: an amount is a number, 0 or more"


@pytest.mark.parametrize(
    "memory", [-1, True, float("nan"), float("inf"), "", "2 potatoes", "-1GB", [1], 2**63], ids=repr
)
def test_what_is_no_amount_of_memory_is_refused(memory: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^memory=.*: it is an amount of memory"):
        make_need(memory=memory)


@pytest.mark.parametrize("gpus", [1.5, 2.001, 1.0001])
def test_more_than_one_device_is_a_whole_number(gpus: float) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        make_need(gpus=gpus)
    assert f"gpus={gpus}: " in str(caught.value)
    assert str(caught.value).endswith(f"gpus={int(gpus)} or gpus={int(gpus) + 1}")


@pytest.mark.parametrize("option", ["cpus", "gpus"])
def test_what_is_finer_than_the_finest_share_is_refused(option: str) -> None:
    assert getattr(make_need(**{option: 0.0001}), option) == 0.0001
    with pytest.raises(InvalidArgumentError, match=r"0\.0001\); for none at all write 0"):
        make_need(**{option: 0.00001})


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"cpus": 1}, "cpus has an option of its own: cpus=1"),
        ({"gpus": 2}, "gpus has an option of its own: gpus=2"),
        ({"memory": 5}, "memory has an option of its own: memory=5"),
        ({1: 1}, "the name of a resource is a text, and 1 is not"),
        ({"": 1}, "the name of a resource is a text, and '' is not"),
        ("licence", "a dictionary of names and amounts, such as {'licence': 1}"),
        (["licence"], "a dictionary of names and amounts"),
        (3, "a dictionary of names and amounts"),
    ],
    ids=repr,
)
def test_resources_that_cannot_be_meant_are_refused(resources: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        make_need(resources=resources)
    assert str(caught.value).startswith(f"resources={resources!r}: ")
    assert words in str(caught.value)


@given(st.integers(1, SHARES))
def test_n_times_one_nth_fits_in_one(parts: int) -> None:
    shares = make_need(cpus=1 / parts).cpu_shares
    assert shares * parts <= SHARES
    assert shares == SHARES // parts, "and no finer part would"


@given(st.integers(0, 10**9))
def test_decimals_lose_nothing(number: int) -> None:
    """A float is the nearest to what somebody wrote, often a little less."""
    need = make_need(cpus=number / SHARES)
    assert need.cpu_shares == number
    assert need.cpus == number / SHARES
    assert make_need(cpus=float(f"{number // SHARES}.{number % SHARES:04}")) is need


# --- what a session has -----------------------------------------------------------


def test_a_session_is_described() -> None:
    capacity = Capacity(4, ("0", "1"), memory=16 * GB, named={"licence": 1, "disk": 2})
    assert capacity.describe() == "4 cpus, 2 gpus, 16 GB of memory, 2 disk, 1 licence"
    assert (capacity.cpus, capacity.gpus, capacity.memory) == (4, ("0", "1"), 16 * GB)
    assert capacity.named == (("disk", 2), ("licence", 1))
    assert Capacity(1).describe() == "1 cpu"
    assert repr(Capacity(1, memory=0)) == "<capacity: 1 cpu, 0 B of memory>"


@pytest.mark.parametrize(
    "arguments",
    [
        {"cpus": -1},
        {"cpus": True},
        {"cpus": "4"},
        {"gpus": ("0", "1", "0")},
        {"memory": -1},
        {"named": {"cpus": 1}},
        {"named": {"licence": -1}},
        {"named": ["licence"]},
    ],
    ids=repr,
)
def test_a_session_has_no_impossible_amounts(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Capacity(**({"cpus": 4} | arguments))


def test_cpus_are_taken_and_given_back() -> None:
    capacity = Capacity(2)
    two = make_need(cpus=2)
    assert capacity.fits(two)
    assert capacity.take(ONE_CPU) == ()
    assert capacity.fits(ONE_CPU) and not capacity.fits(two)
    assert capacity.find_short(two) == ("cpus",)
    capacity.take(ONE_CPU)
    assert not capacity.fits(ONE_CPU)
    assert capacity.fits(make_need(cpus=0)), "what does not compute needs no cpu"
    capacity.give(ONE_CPU, ())
    capacity.give(ONE_CPU)
    assert capacity.fits(two)
    capacity.validate()


@pytest.mark.parametrize("parts", [2, 3, 6, 7, 9, 11])
def test_fractions_fill_one_and_leave_nothing_behind(parts: int) -> None:
    need = make_need(cpus=1 / parts, gpus=1 / parts, resources={"licence": 1 / parts})
    capacity = Capacity(1, ("0",), named={"licence": 1})
    for _ in range(3):
        for _ in range(parts):
            assert capacity.fits(need)
            assert capacity.take(need) == ("0",)
            capacity.validate()
        assert not capacity.fits(need)
        assert capacity.find_short(need) == ("cpus", "gpus", "licence")
        for _ in range(parts):
            capacity.give(need, ("0",))
            capacity.validate()
        assert capacity.fits(make_need(gpus=1, resources={"licence": 1}))


def test_fractions_share_the_fullest_device_that_has_room() -> None:
    capacity = Capacity(100, ("0", "1", "2"))
    half, most, quarter = make_need(gpus=0.5), make_need(gpus=0.75), make_need(gpus=0.25)
    assert capacity.take(half) == ("0",)
    assert capacity.take(most) == ("1",)
    assert capacity.take(quarter) == ("1",), "0 has more room than is needed"
    assert capacity.take(quarter) == ("0",)
    assert capacity.take(make_need(gpus=1)) == ("2",), "which stayed free"
    assert not capacity.fits(half)
    assert capacity.find_short(half) == ("gpus",)
    assert capacity.fits(quarter)


def test_whole_devices_are_those_that_are_free_the_first_ones_first() -> None:
    capacity = Capacity(100, ("GPU-c", "GPU-a", "GPU-b"))
    two, one, part = make_need(gpus=2), make_need(gpus=1), make_need(gpus=0.1)
    assert capacity.take(two) == ("GPU-c", "GPU-a")
    assert not capacity.fits(two)
    assert capacity.take(part) == ("GPU-b",)
    assert not capacity.fits(one)
    capacity.give(two, ("GPU-c", "GPU-a"))
    assert capacity.take(one) == ("GPU-c",)
    capacity.give(part, ("GPU-b",))
    assert capacity.take(two) == ("GPU-a", "GPU-b")
    capacity.validate()


def test_room_on_two_devices_is_no_room_on_one() -> None:
    capacity = Capacity(100, ("0", "1"))
    half, most = make_need(gpus=0.5), make_need(gpus=0.6)
    for device in ("0", "1"):
        assert capacity.take(most) == (device,)
    assert not capacity.fits(half)
    assert not capacity.fits(make_need(gpus=1))
    assert capacity.fits(make_need(gpus=0.4))


def test_memory_and_named_resources_are_limited() -> None:
    capacity = Capacity(100, memory=10 * GB, named={"licence": 2})
    large = make_need(memory="6GB")
    licensed = make_need(memory="3GB", resources={"licence": 1})
    capacity.take(large)
    assert capacity.find_short(large) == ("memory",)
    capacity.take(licensed)
    assert capacity.find_short(licensed) == ("memory",)
    capacity.give(large)
    capacity.take(licensed)
    assert capacity.find_short(licensed) == ("licence",)
    assert capacity.fits(make_need(memory="4GB"))
    assert not capacity.fits(make_need(memory=4 * GB + 1))
    capacity.validate()


def test_memory_without_a_limit_is_always_there() -> None:
    capacity = Capacity(2)
    huge = make_need(memory="1000 TB")
    assert capacity.explain_misfit(huge) is None
    capacity.take(huge)
    assert capacity.fits(huge)
    capacity.give(huge)
    capacity.validate()


def test_a_call_that_waits_keeps_all_but_its_cpus() -> None:
    capacity = Capacity(2, ("0",), memory=GB, named={"licence": 1})
    need = make_need(cpus=2, gpus=1, memory=GB, resources={"licence": 1})
    devices = capacity.take(need)
    capacity.give_cpus(need)
    assert capacity.fits_cpus(need)
    assert capacity.find_short(need) == ("gpus", "memory", "licence")
    capacity.take(ONE_CPU)
    assert not capacity.fits_cpus(need)
    capacity.give(ONE_CPU)
    capacity.take_cpus(need)
    assert not capacity.fits(ONE_CPU)
    capacity.validate()
    capacity.give(need, devices)
    assert capacity.fits(need)


@pytest.mark.parametrize(
    ("need", "spoil"),
    [
        (ONE_CPU, "take"),
        (ONE_CPU, "give"),
        (make_need(cpus=0, gpus=1), "give"),
        (make_need(cpus=0, memory=1), "give"),
        (make_need(cpus=0, memory=2), "take"),
        (make_need(cpus=0, resources={"licence": 1}), "give"),
        (make_need(cpus=0, resources={"licence": 2}), "take"),
    ],
    ids=repr,
)
def test_validation_sees_what_is_taken_or_given_once_too_often(need: Need, spoil: str) -> None:
    capacity = Capacity(1, ("0",), memory=1, named={"licence": 1})
    if spoil == "take":
        capacity.take(need)
        capacity.take(need)
    else:
        capacity.give(need, ("0",) if need.gpus else ())
    with pytest.raises(AssertionError):
        capacity.validate()


# --- what can never run -----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"cpus": 8},
            "it needs 8 cpus, and the session has 4: ask for fewer, or Session(workers=8)",
        ),
        (
            {"cpus": 4.5},
            "it needs 4.5 cpus, and the session has 4: ask for fewer, or Session(workers=5)",
        ),
        (
            {"gpus": 3},
            (
                "it needs 3 gpus, and the session has 2 (0, 1): "
                "ask for fewer, or, where there are more, Session(gpus=3)"
            ),
        ),
        (
            {"memory": "32GB"},
            "it needs 32 GB of memory, and the session has 16 GB: ask for no more than that",
        ),
        (
            {"memory": 16 * GB + 1},
            "it needs 14.9 GiB of memory, and the session has 16 GB: ask for no more than that",
        ),
        (
            {"resources": {"licence": 2}},
            (
                "it needs 2 of the resource 'licence', and the session has 1: "
                "Session(resources={'licence': 2})"
            ),
        ),
        (
            {"resources": {"license": 1}},
            (
                "it needs 1 of the resource 'license', and the session has none of that name, "
                "only 'disk', 'licence': Session(resources={'license': 1})"
            ),
        ),
        (
            {"cpus": 5, "resources": {"licence": 1.5}},
            (
                "it needs 5 cpus, and the session has 4: ask for fewer, or Session(workers=5); "
                "it needs 1.5 of the resource 'licence', and the session has 1: "
                "Session(resources={'licence': 1.5})"
            ),
        ),
    ],
)
def test_a_call_that_can_never_run_is_told_why(options: dict[str, Any], words: str) -> None:
    capacity = Capacity(4, ("0", "1"), memory=16 * GB, named={"licence": 1, "disk": 0.5})
    need = make_need(**options)
    assert capacity.explain_misfit(need) == words
    assert not capacity.fits(need)


def test_sizes_that_read_the_same_are_told_in_bytes() -> None:
    capacity = Capacity(1, memory=123_456_789)
    assert capacity.explain_misfit(make_need(memory=123_456_790)) == (
        "it needs 123456790 bytes of memory, and the session has 123456789 bytes: "
        "ask for no more than that"
    )


def test_a_session_without_any_says_so() -> None:
    bare = Capacity(1)
    assert bare.explain_misfit(make_need(gpus=0.5)) == (
        "it needs 0.5 gpu, and the session has none: where there are devices that were not found, "
        "say how many, Session(gpus=1)"
    )
    assert bare.explain_misfit(make_need(resources={"licence": 1})) == (
        "it needs 1 of the resource 'licence', and the session has no named resources: "
        "Session(resources={'licence': 1})"
    )


def test_what_is_taken_now_is_no_misfit() -> None:
    capacity = Capacity(2, ("0",), named={"licence": 1})
    all_of_it = make_need(cpus=2, gpus=1, resources={"licence": 1})
    capacity.take(all_of_it)
    assert not capacity.fits(all_of_it)
    assert capacity.explain_misfit(all_of_it) is None
    assert capacity.explain_misfit(make_need(gpus=0.9)) is None


# --- at random --------------------------------------------------------------------

amounts = st.integers(0, 3) | st.sampled_from([1 / 3, 0.1, 0.7, 1 / 7, 0.29, 2.5, 0.0001])
needs = st.builds(
    make_need,
    cpus=amounts,
    gpus=st.integers(0, 4) | st.sampled_from([1 / 3, 0.1, 0.5, 0.7, 1 / 7, 0.9999]),
    memory=st.integers(0, 120) | st.none(),
    resources=st.dictionaries(st.sampled_from(["licence", "disk", "other"]), amounts),
)


@given(needs, st.integers(0, 3), st.integers(0, 3), st.none() | st.integers(0, 100))
def test_what_is_no_misfit_fits_an_idle_session(
    need: Need, cpus: int, gpus: int, memory: int | None
) -> None:
    capacity = Capacity(cpus, tuple(map(str, range(gpus))), memory, {"licence": 1, "disk": 2.5})
    assert capacity.fits(need) == (capacity.explain_misfit(need) is None)
    assert capacity.fits(need) == (capacity.find_short(need) == ())
    if capacity.fits(need):
        devices = capacity.take(need)
        capacity.validate()
        assert len(set(devices)) == len(devices) == -(-need.gpu_shares // SHARES)
        capacity.give(need, devices)
        assert capacity.fits(need)


class Taking(RuleBasedStateMachine):
    """Calls come, wait, go on and go; what they hold is added up anew after each step, in fractions."""

    gpus = ("0", "1", "GPU-x")
    memory = 100

    def __init__(self) -> None:
        super().__init__()
        self.named = {"licence": Fraction(1), "disk": Fraction(5, 2)}
        self.capacity = Capacity(3, self.gpus, self.memory, {"licence": 1, "disk": 2.5})
        self.running: list[tuple[Need, tuple[str, ...]]] = []
        self.waiting: list[tuple[Need, tuple[str, ...]]] = []

    def used_cpus(self) -> Fraction:
        return sum((Fraction(need.cpu_shares, SHARES) for need, _ in self.running), Fraction(0))

    def used(self) -> dict[str, Fraction]:
        """Of everything but cpus."""
        used = dict.fromkeys([*self.gpus, "memory", *self.named], Fraction(0))
        for need, devices in self.running + self.waiting:
            for device in devices:
                used[device] += min(Fraction(need.gpu_shares, SHARES), 1)
            used["memory"] += need.memory
            for name, shares in need.named_shares:
                used[name] += Fraction(shares, SHARES)
        return used

    def is_short(self, need: Need) -> set[str]:
        """The same as `find_short`, the long way."""
        used, short = self.used(), set()
        if self.used_cpus() + Fraction(need.cpu_shares, SHARES) > 3:
            short.add("cpus")
        gpus = Fraction(need.gpu_shares, SHARES)
        enough = [gpu for gpu in self.gpus if 1 - used[gpu] >= min(gpus, 1)]
        if gpus and len(enough) < max(gpus, 1):
            short.add("gpus")
        if need.memory > self.memory - used["memory"]:
            short.add("memory")
        for name, shares in need.named_shares:
            there = self.named[name] - used[name] if name in self.named else 0
            if Fraction(shares, SHARES) > there:
                short.add(name)
        return short

    @rule(need=needs)
    def come(self, need: Need) -> None:
        short = self.is_short(need)
        assert set(self.capacity.find_short(need)) == short
        assert self.capacity.fits(need) == (not short)
        assert self.capacity.fits_cpus(need) == ("cpus" not in short)
        if short:
            return
        used = self.used()
        chosen = self.capacity.choose_devices(need)
        devices = self.capacity.take(need)
        assert devices == chosen
        assert len(set(devices)) == len(devices)
        if need.gpu_shares >= SHARES:
            free = [gpu for gpu in self.gpus if not used[gpu]]
            assert devices == tuple(free[: need.gpu_shares // SHARES])
        elif need.gpu_shares:
            share = Fraction(need.gpu_shares, SHARES)
            fuller = [gpu for gpu in self.gpus if used[gpu] > used[devices[0]]]
            assert all(used[gpu] + share > 1 for gpu in fuller)
        else:
            assert devices == ()
        self.running.append((need, devices))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        need, devices = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.capacity.give(need, devices)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        call = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.capacity.give_cpus(call[0])
        self.waiting.append(call)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.waiting) - 1))
        call = self.waiting[place]
        if self.capacity.fits_cpus(call[0]):
            del self.waiting[place]
            self.capacity.take_cpus(call[0])
            self.running.append(call)

    @invariant()
    def nothing_is_overdrawn(self) -> None:
        self.capacity.validate()
        assert self.used_cpus() <= 3
        used = self.used()
        assert all(used[gpu] <= 1 for gpu in self.gpus)
        assert used["memory"] <= self.memory
        assert all(used[name] <= there for name, there in self.named.items())

    def teardown(self) -> None:
        for need, devices in self.running:
            self.capacity.give(need, devices)
        for need, devices in self.waiting:
            if self.capacity.fits_cpus(need):
                self.capacity.take_cpus(need)
                self.capacity.give(need, devices)
            else:
                raise AssertionError("all cpus are free")
        self.capacity.validate()
        everything = make_need(3, 3, self.memory, {"licence": 1, "disk": 2.5})
        assert self.capacity.take(everything) == self.gpus, "all is there again, exactly"
        assert self.capacity.find_short(make_need(0.0001, 0.0001, 1, {"licence": 0.0001})) == (
            "cpus",
            "gpus",
            "memory",
            "licence",
        )


TestTaking = Taking.TestCase
TestTaking.settings = settings(max_examples=80, stateful_step_count=40)
