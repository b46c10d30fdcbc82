"""Pure: what calls need to run, and what a session has of it. No clock, no thread, no device is touched.

Amounts are counted in whole *shares*, ten thousand to one, because sums of floats drift: three calls with a third of
a device each fit on it, and when all have ended it is free again, exactly.
"""

from __future__ import annotations

from manyhands.core.sizes import format_size, parse_size
from manyhands.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    _Key = tuple[int, int, int, tuple[tuple[str, int], ...]]

SHARES = 10_000
"""Shares of one cpu, one device, one piece of a named resource."""

_SLACK = 1e-6
"""Of a share. What a float loses is less: 0.29 * 10_000 is 2899.9999999999995 and means 2900."""

_OWN_OPTIONS = ("cpus", "gpus", "memory")

_UNITS = (
    ("TiB", 2**40),
    ("TB", 10**12),
    ("GiB", 2**30),
    ("GB", 10**9),
    ("MiB", 2**20),
    ("MB", 10**6),
    ("KiB", 2**10),
    ("kB", 10**3),
)


class Need:
    """What one call needs while it runs; made by `make_need`, which gives equal needs as one object.

    Attributes
    ----------
    cpus : float
        0 for a call that does not compute, or a fraction for one that mostly waits.
    gpus : float
        0, a fraction of one device, or a whole number of devices.
    memory : int
        Bytes; 0 where nothing is said.
    named : tuple of (str, float)
        Named resources of the session and how much of each, by name.
    cpu_shares, gpu_shares : int
        The same, in shares.
    named_shares : tuple of (str, int)
    is_plain : bool
        Whether nothing but cpus is needed, as by nearly every call.

    Examples
    --------
    >>> make_need() is make_need(cpus=1.0, memory=0)
    True
    """

    __slots__ = (
        "cpu_shares",
        "cpus",
        "gpu_shares",
        "gpus",
        "is_plain",
        "memory",
        "named",
        "named_shares",
    )

    cpus: float
    gpus: float
    memory: int
    named: tuple[tuple[str, float], ...]
    cpu_shares: int
    gpu_shares: int
    named_shares: tuple[tuple[str, int], ...]
    is_plain: bool

    def __init__(
        self, cpu_shares: int, gpu_shares: int, memory: int, named: tuple[tuple[str, int], ...]
    ) -> None:
        write = object.__setattr__
        write(self, "cpu_shares", cpu_shares)
        write(self, "gpu_shares", gpu_shares)
        write(self, "memory", memory)
        write(self, "named_shares", named)
        write(self, "cpus", _to_amount(cpu_shares))
        write(self, "gpus", _to_amount(gpu_shares))
        write(self, "named", tuple((name, _to_amount(shares)) for name, shares in named))
        write(self, "is_plain", not (gpu_shares or memory or named))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a need does not change: make another with make_need({name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a need does not change: make another with make_need(…)")

    def __repr__(self) -> str:
        return f"<need: {self.describe()}>"

    def __reduce__(self) -> tuple[object, ...]:
        # A pickle, too, becomes the one object of its kind.
        return _intern, ((self.cpu_shares, self.gpu_shares, self.memory, self.named_shares),)

    def describe(self) -> str:
        """For people.

        Examples
        --------
        >>> make_need(gpus=0.5, memory="2GB", resources={"licence": 1}).describe()
        '1 cpu, 0.5 gpu, 2 GB of memory, 1 licence'
        """
        return _describe(
            self.cpu_shares, self.gpu_shares, self.memory or None, dict(self.named_shares)
        )


_needs: dict[_Key, Need] = {}
"""Every need there is. They stay: a program has few that differ, and one takes some hundred bytes."""


def make_need(
    cpus: float = 1,
    gpus: float = 0,
    memory: int | str | None = None,
    resources: Mapping[str, float] | None = None,
) -> Need:
    """The need for so much.

    Parameters
    ----------
    cpus
        0 or more. The smallest fraction, here and below, is a ten-thousandth; finer ones are rounded down to these,
        so that seven sevenths fit in one.
    gpus
        A fraction below 1 for a part of one device, or a whole number of devices.
    memory
        Bytes, or a text such as ``"2GB"``.
    resources
        How much of the session's named resources. An amount of 0 is as if the name were not there.

    Raises
    ------
    InvalidArgumentError
    """
    return _intern(
        (
            _count_shares(cpus, "cpus", cpus),
            _count_gpu_shares(gpus),
            0 if memory is None else parse_size(memory, "memory"),
            () if resources is None else tuple(sorted(_count_named_shares(resources).items())),
        )
    )


def _intern(key: _Key) -> Need:
    need = _needs.get(key)
    # With `setdefault`, two threads that make the same need at once get the same one.
    return need if need is not None else _needs.setdefault(key, Need(*key))


def _count_shares(amount: object, what: str, shown: object) -> int:
    """The shares of an amount that somebody wrote as ``what=shown``.

    Rounded down, so that n calls of 1/n each fit in one.
    """
    number = _to_number(amount)
    if number is None or number < 0:
        raise InvalidArgumentError(f"{what}={shown!r}: an amount is a number, 0 or more")
    if number == int(number):
        return int(number) * SHARES
    shares = int(number * SHARES + _SLACK)
    if not shares:
        raise InvalidArgumentError(
            f"{what}={shown!r}: the smallest amount is 1/{SHARES} ({1 / SHARES}); for none at all write 0"
        )
    return shares


def _to_number(amount: object) -> float | None:
    """A finite number, or None for anything else. Integers of other libraries count."""
    if isinstance(amount, bool):
        return None
    if not isinstance(amount, (int, float)):
        index = getattr(type(amount), "__index__", None)
        try:
            return None if index is None else int(index(amount))
        except TypeError:  # arrays have the method, and refuse unless they hold one integer
            return None
    if isinstance(amount, float) and not -float("inf") < amount < float("inf"):
        return None
    return amount


def _count_gpu_shares(gpus: object) -> int:
    shares = _count_shares(gpus, "gpus", gpus)
    if shares > SHARES and shares % SHARES:
        raise InvalidArgumentError(
            f"gpus={gpus!r}: a call shares one device or has whole ones for itself, so it is a fraction "
            f"below 1 or a whole number: gpus={shares // SHARES} or gpus={shares // SHARES + 1}"
        )
    return shares


def _count_named_shares(resources: object) -> dict[str, int]:
    """Shares by name, without those of which nothing is needed."""
    if not isinstance(resources, dict) and not hasattr(resources, "items"):
        raise InvalidArgumentError(
            f"resources={resources!r}: it is a dictionary of names and amounts, such as {{'licence': 1}}"
        )
    counted = {}
    for name, amount in resources.items():
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError(
                f"resources={resources!r}: the name of a resource is a text, and {name!r} is not"
            )
        if name in _OWN_OPTIONS:
            raise InvalidArgumentError(
                f"resources={resources!r}: {name} has an option of its own: {name}={amount!r}"
            )
        shares = _count_shares(amount, "resources", resources)
        if shares:
            counted[name] = shares
    return counted


class Capacity:
    """What a session has, and what of it is free.

    Who takes something makes sure before that it `fits`.

    Attributes
    ----------
    cpus : float
    gpus : tuple of str
        The ids of the devices.
    memory : int or None
        Bytes; None for no limit.
    named : tuple of (str, float)
        Named resources, by name.

    Parameters
    ----------
    cpus, gpus, memory
        As above.
    named
        A mapping.

    Raises
    ------
    InvalidArgumentError

    Examples
    --------
    >>> capacity = Capacity(2, gpus=("0", "1"))
    >>> half = make_need(gpus=0.5)
    >>> capacity.take(half), capacity.fits(make_need(gpus=2)), capacity.take(make_need(gpus=1))
    (('0',), False, ('1',))
    >>> capacity.find_short(half)
    ('cpus',)
    """

    __slots__ = (
        "_cpu_shares",
        "_device_room",
        "_free_cpus",
        "_free_memory",
        "_free_named",
        "_named_shares",
        "_overdraft",
        "cpus",
        "gpus",
        "memory",
        "named",
    )

    def __init__(
        self,
        cpus: float,
        gpus: tuple[str, ...] = (),
        memory: int | None = None,
        named: Mapping[str, float] | None = None,
    ) -> None:
        if len(set(gpus)) != len(gpus):
            raise InvalidArgumentError(f"gpus={gpus!r}: a device is there twice")
        self._cpu_shares = _count_shares(cpus, "cpus", cpus)
        self._named_shares = {} if named is None else _count_named_shares(named)
        self.cpus = _to_amount(self._cpu_shares)
        self.gpus = tuple(gpus)
        self.memory = None if memory is None else parse_size(memory, "memory")
        self.named = tuple(
            (name, _to_amount(shares)) for name, shares in sorted(self._named_shares.items())
        )
        self._free_cpus = self._cpu_shares
        self._overdraft = 0  # shares of cpus that `take_cpus` took and that were not there
        self._device_room = dict.fromkeys(self.gpus, SHARES)  # shares, in the order of the devices
        self._free_memory = self.memory
        self._free_named = dict(self._named_shares)

    def __repr__(self) -> str:
        return f"<capacity: {self.describe()}>"

    # --- now ----------------------------------------------------------------------

    def fits(self, need: Need) -> bool:
        """Whether it can be taken now."""
        if need.cpu_shares > self._free_cpus:
            return False
        return need.is_plain or not self._find_others_short(need)

    def fits_cpus(self, need: Need) -> bool:
        """Whether the cpus that it needs can be taken now."""
        return need.cpu_shares <= self._free_cpus

    def find_short(self, need: Need) -> tuple[str, ...]:
        """What there is too little of now: "cpus", "gpus", "memory" or a name; nothing where it fits.

        A scheduler that keeps these for a call which waits lets those pass that need none of them.
        """
        short = self._find_others_short(need)
        return short if need.cpu_shares <= self._free_cpus else ("cpus", *short)

    def take(self, need: Need) -> tuple[str, ...]:
        """Take what it needs.

        Returns
        -------
        tuple of str
            The ids of its devices, for `give`. A fraction goes where the least is left that suffices, so that
            whole devices stay free; whole ones are the first that are free.
        """
        self._free_cpus -= need.cpu_shares
        if need.is_plain:
            return ()
        if self._free_memory is not None:
            self._free_memory -= need.memory
        for name, shares in need.named_shares:
            self._free_named[name] -= shares
        devices = self._choose_devices(need.gpu_shares)
        for device in devices:
            self._device_room[device] -= min(need.gpu_shares, SHARES)
        return devices

    def limit_memory(self, memory: int) -> None:
        """Set how much memory there is, where that was open and nothing of it is taken."""
        self.memory = self._free_memory = memory

    def choose_devices(self, need: Need) -> tuple[str, ...]:
        """The devices that `take` would return now."""
        return self._choose_devices(need.gpu_shares)

    def give(self, need: Need, devices: tuple[str, ...] = ()) -> None:
        """Give back what `take` took; `devices` are those that it returned."""
        self.give_cpus(need)
        if need.is_plain:
            return
        if self._free_memory is not None:
            self._free_memory += need.memory
        for name, shares in need.named_shares:
            self._free_named[name] += shares
        for device in devices:
            self._device_room[device] += min(need.gpu_shares, SHARES)

    def give_cpus(self, need: Need) -> None:
        """Give the cpus back and keep the rest, as a call does while it waits for others."""
        self._free_cpus += need.cpu_shares
        if self._overdraft:
            self._overdraft = max(0, min(self._overdraft, -self._free_cpus))

    def take_cpus(self, need: Need) -> None:
        """Take the cpus again after `give_cpus`, though others may have them: who asks must go on."""
        self._free_cpus -= need.cpu_shares
        self._overdraft = max(self._overdraft, -self._free_cpus)

    # --- ever ---------------------------------------------------------------------

    def explain_misfit(self, need: Need) -> str | None:
        """Why a call with this need can never run, and the way out; None where it can run when nothing else does.

        Examples
        --------
        >>> Capacity(4, named={"licence": 1}).explain_misfit(make_need(resources={"licence": 2}))
        "it needs 2 of the resource 'licence', and the session has 1: Session(resources={'licence': 2})"
        """
        reasons = []
        if need.cpu_shares > self._cpu_shares:
            reasons.append(
                f"it needs {_count(need.cpu_shares, 'cpu')}, and the session has {self.cpus}: "
                f"ask for fewer, or Session(workers={_round_up(need.cpu_shares)})"
            )
        if need.gpu_shares > len(self.gpus) * SHARES:
            reasons.append(self._explain_gpus(need))
        if self.memory is not None and need.memory > self.memory:
            reasons.append(self._explain_memory(need.memory, self.memory))
        for name, shares in need.named_shares:
            if shares > self._named_shares.get(name, 0):
                reasons.append(self._explain_named(name, shares))
        return "; ".join(reasons) or None

    def describe(self) -> str:
        """All that there is, taken or not, for people.

        Examples
        --------
        >>> Capacity(4, ("0", "1"), memory=16_000_000_000, named={"licence": 1}).describe()
        '4 cpus, 2 gpus, 16 GB of memory, 1 licence'
        """
        named = dict(sorted(self._named_shares.items()))
        return _describe(self._cpu_shares, len(self.gpus) * SHARES, self.memory, named)

    def validate(self) -> None:
        """Raise AssertionError where more is taken, or given back, than there is; for tests.

        Only `take_cpus` may overdraw cpus.
        """
        assert -self._overdraft <= self._free_cpus <= self._cpu_shares, ("cpus", self._free_cpus)
        for device, room in self._device_room.items():
            assert 0 <= room <= SHARES, (device, room)
        if self.memory is not None:
            assert self._free_memory is not None
            assert 0 <= self._free_memory <= self.memory, ("memory", self._free_memory)
        for name, free in self._free_named.items():
            assert 0 <= free <= self._named_shares[name], (name, free)

    # --- the parts ----------------------------------------------------------------

    def _find_others_short(self, need: Need) -> tuple[str, ...]:
        """The same as `find_short`, without cpus."""
        if need.is_plain:
            return ()
        short = []
        if need.gpu_shares and not self._has_devices(need.gpu_shares):
            short.append("gpus")
        if self._free_memory is not None and need.memory > self._free_memory:
            short.append("memory")
        for name, shares in need.named_shares:
            if shares > self._free_named.get(name, 0):
                short.append(name)
        return tuple(short)

    def _has_devices(self, shares: int) -> bool:
        rooms = self._device_room.values()
        if shares < SHARES:
            return any(room >= shares for room in rooms)
        return sum(room == SHARES for room in rooms) * SHARES >= shares

    def _choose_devices(self, shares: int) -> tuple[str, ...]:
        if not shares:
            return ()
        rooms = self._device_room
        if shares < SHARES:
            # The first of equals: `min` keeps the order of the devices.
            return (min((d for d, room in rooms.items() if room >= shares), key=rooms.__getitem__),)
        free = [device for device, room in rooms.items() if room == SHARES]
        return tuple(free[: shares // SHARES])

    def _explain_gpus(self, need: Need) -> str:
        wanted = _count(need.gpu_shares, "gpu")
        number = _round_up(need.gpu_shares)
        if not self.gpus:
            return (
                f"it needs {wanted}, and the session has none: where there are devices that were not found, "
                f"say how many, Session(gpus={number})"
            )
        return (
            f"it needs {wanted}, and the session has {len(self.gpus)} ({', '.join(self.gpus)}): "
            f"ask for fewer, or, where there are more, Session(gpus={number})"
        )

    def _explain_memory(self, wanted: int, there: int) -> str:
        want, have = _describe_size(wanted), _describe_size(there)
        if want == have:
            want, have = f"{wanted} bytes", f"{there} bytes"
        return f"it needs {want} of memory, and the session has {have}: ask for no more than that"

    def _explain_named(self, name: str, shares: int) -> str:
        amount = _to_amount(shares)
        if name in self._named_shares:
            there = f"{_to_amount(self._named_shares[name])}"
        elif self._named_shares:
            there = f"none of that name, only {', '.join(map(repr, sorted(self._named_shares)))}"
        else:
            there = "no named resources"
        return (
            f"it needs {amount} of the resource {name!r}, and the session has {there}: "
            f"Session(resources={{{name!r}: {amount}}})"
        )


def _describe(cpus: int, gpus: int, memory: int | None, named: Mapping[str, int]) -> str:
    """Shares in words."""
    parts = [_count(cpus, "cpu")] if cpus else []
    if gpus:
        parts.append(_count(gpus, "gpu"))
    if memory is not None:
        parts.append(f"{_describe_size(memory)} of memory")
    parts += [f"{_to_amount(shares)} {name}" for name, shares in named.items()]
    return ", ".join(parts) or "nothing"


def _count(shares: int, noun: str) -> str:
    return f"{_to_amount(shares)} {noun}{'s' if shares > SHARES else ''}"


def _describe_size(size: int) -> str:
    """A size in the unit in which it was probably written, or else the nearest."""
    for unit, each in _UNITS:
        if size >= each and not size * 10 % each:
            return f"{size // each if not size % each else size / each} {unit}"
    return format_size(size)


def _to_amount(shares: int) -> float:
    """The number that people write for so many shares."""
    return shares / SHARES if shares % SHARES else shares // SHARES


def _round_up(shares: int) -> int:
    """The whole number that holds so many shares."""
    return -(-shares // SHARES)


ONE_CPU = make_need()
"""The need of every call that says nothing else."""
