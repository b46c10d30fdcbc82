"""Refs and stored values: stored once, read by any call, freed when nobody needs them."""

from __future__ import annotations

import gc
import pickle
import warnings
from typing import Any

import manyhands as mh
from manyhands.testing import work
from manyhands.testing.case import OpenSession, case
from manyhands.testing.checks import LIMIT, check, check_equal, expect, wait_for

_BLOCK = bytes(range(256)) * 1000
"""Larger than what engines send with a message."""

_VALUES: tuple[Any, ...] = (
    None,
    7,
    "text",
    [1, (2, {"a": {3}})],
    b"",
    bytearray(b"ab"),
    _BLOCK,
    bytearray(_BLOCK),
    "ä" * 100_000,
    list(range(50_000)),
    {"small": b"x", "large": [_BLOCK, _BLOCK[1:]]},
)


@case()
def put_and_get_give_the_value(open_session: OpenSession) -> None:
    """What was put is got back equal, small and large, as often as it is asked for."""
    with open_session(workers=1) as session:
        for value in _VALUES:
            ref = session.put(value)
            check(ref.get() == value, f"{type(value).__name__} came back changed")
            check(mh.get(ref) == value, f"{type(value).__name__} came back changed")
        check(mh.put(1).get() == 1, "the package's put did not use this session")


@case()
def get_maps_over_containers(open_session: OpenSession) -> None:
    """`get` gives the values of refs in lists, tuples and dicts, and passes on whatever else it is given."""
    with open_session(workers=1) as session:
        one, two = session.put("one"), session.put("two")
        check_equal(mh.get([one, (two, 3)]), ["one", ("two", 3)])
        check_equal(mh.get({"a": one, "b": [two]}), {"a": "one", "b": ["two"]})
        check_equal(mh.get({1, 2}), {1, 2})
        check_equal(mh.get(None), None)


@case()
def a_ref_tells_what_it_is(open_session: OpenSession) -> None:
    """A ref names its number, the class of its value, and where that is."""
    with open_session(workers=1) as session:
        ref, other = session.put(_BLOCK), session.put(_BLOCK)
        check_equal((ref.type_name, ref.place), ("bytes", "memory"))
        check(ref.id != other.id, "two refs have one number")
        check(ref != other and len({ref, other, ref}) == 2, "refs of two values count as one")
        check(f"Ref {ref.id}: bytes" in repr(ref), repr(ref))


@case()
def a_ref_as_an_argument_is_its_value(open_session: OpenSession) -> None:
    """Among positional and keyword arguments a call gets the value in the ref's place."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        two, block = session.put(2), session.put(_BLOCK)
        check_equal(submit(work.add, two, b=two, c=two).result(LIMIT), 6)
        check_equal(submit(len, block).result(LIMIT), len(_BLOCK))
        check(submit(work.echo, block).result(LIMIT) == _BLOCK, "it came back changed")
        for value in _VALUES:
            check(submit(work.echo, session.put(value)).result(LIMIT) == value, "changed")


@case()
def refs_can_be_nested(open_session: OpenSession) -> None:
    """Refs inside lists, tuples and dicts, however deep, stand for their values."""
    with open_session(workers=2) as session:
        one, two, block = session.put(1), session.put(2), session.put(_BLOCK)
        value = {"a": [one, (two, {"b": block})], "c": one}
        found = session.submit(work.echo, value).result(LIMIT)
        check(found == {"a": [1, (2, {"b": _BLOCK})], "c": 1}, "the values are not in their places")
        check(value["a"] == [one, (two, {"b": block})], "the caller's own containers were changed")
        check_equal(session.submit(work.total, [one, [two, two]]).result(LIMIT), 5)


@case()
def refs_can_be_mapped(open_session: OpenSession) -> None:
    """An item of a map that is a ref, or holds some in a list, is its value for the function."""
    with open_session(workers=2) as session:
        refs: list[Any] = [session.put(bytes(size)) for size in range(0, 60_000, 3000)]
        sizes = list(range(0, 60_000, 3000))
        check_equal(session.map(len, refs), sizes)
        check_equal(session.map(work.measure, [[ref, ref] for ref in refs]), [2 * n for n in sizes])
        check_equal(session.starmap(work.add, [(session.put(x), 1) for x in range(50)])[-1], 50)
        check_equal(list(session.imap(len, refs)), sizes)


@case()
def a_ref_inside_an_object_stays_a_ref(open_session: OpenSession) -> None:
    """In an attribute, a set or a closure a ref travels as a ref, which the call can read."""
    with open_session(workers=2) as session:
        block, small = session.put(_BLOCK), session.put("small")
        check_equal(session.submit(work.measure, work.Carrier(block)).result(LIMIT), len(_BLOCK))
        check_equal(session.submit(work.measure, {block, small}).result(LIMIT), len(_BLOCK) + 5)
        measure = [lambda _: len(block.get()) + len(mh.get(small))]
        check_equal(session.submit(measure[0], 0).result(LIMIT), len(_BLOCK) + 5)
        check_equal(session.map(measure[0], range(20)), [len(_BLOCK) + 5] * 20)


@case()
def a_ref_that_comes_back_is_the_one_that_went(open_session: OpenSession) -> None:
    """A call that returns the ref that it got, inside an object or not, returns this very ref."""
    with open_session(workers=2) as session:
        ref = session.put(_BLOCK)
        for _ in range(3):
            carrier = session.submit(work.echo, work.Carrier(ref)).result(LIMIT)
            check(carrier.value is ref, "another ref came back")
        found = session.submit(work.unload, work.Carrier(ref)).result(LIMIT)
        check(found is ref, "another ref came back as the result itself")
        check(found.get() == _BLOCK, "its value has changed")


@case()
def a_ref_is_the_same_for_a_call_each_time(open_session: OpenSession) -> None:
    """Two ways to the same stored value are one ref in a call, and two stored values are two."""
    with open_session(workers=1) as session:
        ref, other = session.put(_BLOCK), session.put(_BLOCK)
        carriers = [work.Carrier(ref), work.Carrier(other), work.Carrier(ref)]
        check_equal(session.submit(work.count_different, carriers).result(LIMIT), 2)


@case()
def a_call_can_put_thousands(open_session: OpenSession) -> None:
    """Thousands of refs come back, as a result and as the value of one ref, also as the first that a worker stores."""
    for fn in (_put_many, _put_many_in_one):
        with open_session(workers=1) as session:
            for count in (1000, 10_000):
                refs: Any = mh.get(session.submit(fn, count).result(LIMIT))
                check_equal(mh.get(refs), list(range(count)))


@case()
def a_session_inside_a_call_takes_its_refs(open_session: OpenSession) -> None:
    """What a call puts can be given to calls of another session that it opens, whichever engine that has."""
    with open_session(workers=1) as session:
        for engine in ("inline", "threads"):
            check_equal(session.submit(_measure_inside, engine).result(LIMIT), [len(_BLOCK)] * 2)


@case()
def a_call_can_put(open_session: OpenSession) -> None:
    """A value that a call has put is read by the caller and by other calls, by its ref."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        for value in _VALUES:
            ref = submit(work.put_value, value).result(LIMIT)
            check(isinstance(ref, mh.Ref), f"found {ref!r}")
            check(ref.get() == value, "the caller reads something else")
            check(submit(work.echo, ref).result(LIMIT) == value, "a call reads something else")
            carrier = submit(work.echo, work.Carrier(ref)).result(LIMIT)
            check(carrier.value is ref, "another ref came back")


@case()
def a_call_can_put_many(open_session: OpenSession) -> None:
    """The refs of a result are all there, in their places, also where some are the same."""
    with open_session(workers=2) as session:
        found = session.map(work.put_twice, range(30))
        for x, (ref, again, other) in enumerate(found):
            check(ref is again and ref is not other, "refs were mixed up")
            check(ref.get() == [x] * 9000 == other.get(), "values were mixed up")
        firsts = [refs[0] for refs in found]
        check_equal(session.map(len, firsts), [9000] * 30)


@case()
def a_future_of_a_ref_is_its_value_for_a_call(open_session: OpenSession) -> None:
    """A call whose input is a call that returned a ref gets that ref, and reads it."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        made = submit(work.put_value, _BLOCK)
        check_equal(submit(work.measure, made).result(LIMIT), len(_BLOCK))
        check(made.result(LIMIT).get() == _BLOCK, "its value has changed")


@case()
def results_feed_calls(open_session: OpenSession) -> None:
    """Large results are inputs of other calls, and can be read by the caller before and after."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        first = submit(bytes.upper, b"ab" * 50_000)
        second = submit(bytes.lower, first)
        check_equal(submit(work.measure, [first, second]).result(LIMIT), 200_000)
        check(first.result(LIMIT) == b"AB" * 50_000, "an input has changed")
        third = submit(bytes.lower, first)
        check(third.result(LIMIT) == second.result(LIMIT) == b"ab" * 50_000, "a result is wrong")


@case("pickles")
def a_result_that_feeds_calls_is_not_rebuilt_by_the_caller(open_session: OpenSession) -> None:
    """What only other calls read is unpickled by them alone."""
    here = work.get_pid()
    with open_session(workers=1) as session:
        submit: Any = session.submit
        made = submit(work.make_traveller, 100_000)
        there = submit(work.get_travels, made).result(LIMIT)
        check(here not in there, f"the caller, {here}, is among {there}")
        check(here in made.result(LIMIT).travels, "the caller got something else than a copy")


@case()
def copy_gives_each_reader_its_own(open_session: OpenSession) -> None:
    """With `copy=True` a call may change what it gets, and neither other calls nor the caller see it."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        values, block = [1, 2], bytearray(_BLOCK)
        ref, large = session.put(values, copy=True), session.put(block, copy=True)
        for _ in range(3):
            check_equal(submit(work.append, ref).result(LIMIT), [1, 2, 0])
            check_equal(submit(work.fill, large, 9).result(LIMIT), 9 * len(block))
        found = large.get()
        found[:] = bytes(len(found))
        check(ref.get() == [1, 2] == values, "a call's change is seen")
        check(large.get() == block == _BLOCK, "a reader's change is seen")


@case("shares")
def writable_lets_all_see_changes(open_session: OpenSession) -> None:
    """With `writable=True` what one call writes is seen by the next, and by the caller."""
    for size in (100, 100_000):
        with open_session(workers=2) as session:
            submit: Any = session.submit
            ref: Any = session.put(memoryview(bytearray(size)), writable=True)
            for value in (1, 2):
                check_equal(submit(work.fill, ref, value).result(LIMIT), value * size)
                check_equal(session.map(sum, [ref] * 4), [value * size] * 4)
                check_equal(sum(ref.get()), value * size)
            ref.get()[0] = 102
            check_equal(submit(sum, ref).result(LIMIT), 2 * size + 100)


@case()
def writable_and_copy_exclude_each_other(open_session: OpenSession) -> None:
    """A change is seen by all or by nobody else: to ask for both is refused."""
    with open_session(workers=1) as session, expect(mh.InvalidArgumentError):
        session.put(bytearray(10), writable=True, copy=True)


@case("pickles")
def a_stored_value_is_as_it_was_put(open_session: OpenSession) -> None:
    """What the caller or a call changes afterwards does not reach the stored value."""
    with open_session(workers=2) as session:
        submit: Any = session.submit
        values, block = [1, 2], bytearray(_BLOCK)
        ref, large = session.put(values), session.put(block)
        values.append(100)
        block[0] = 77
        check_equal(submit(work.append, ref).result(LIMIT), [1, 2, 0])
        check_equal(submit(work.append, ref).result(LIMIT), [1, 2, 0])
        check_equal(ref.get(), [1, 2])
        check(large.get() == _BLOCK == submit(work.echo, large).result(LIMIT), "a change got in")


@case("stores")
def a_stored_buffer_cannot_be_written(open_session: OpenSession) -> None:
    """A call that writes to a stored buffer fails with the error of any other read-only one."""
    with open_session(workers=1) as session:
        submit: Any = session.submit
        ref = session.put(memoryview(bytearray(_BLOCK)))
        error = submit(work.fill, ref, 1).exception(LIMIT)
        check(isinstance(error, TypeError), f"found {error!r}")
        check(ref.get() == _BLOCK, "it has changed")


@case()
def a_ref_cannot_leave_its_session(open_session: OpenSession) -> None:
    """To pickle a ref for elsewhere is a TypeError that says what to do."""
    with open_session(workers=1) as session:
        ref = session.put([1])
        for value in (ref, [ref], work.Carrier(ref)):
            with expect(TypeError) as caught:
                pickle.dumps(value)
            check("get()" in str(caught.error), str(caught.error))


@case()
def a_ref_of_another_session_is_its_value(open_session: OpenSession) -> None:
    """A ref of one session is an argument of a call of another as its value is."""
    with open_session(workers=1) as first, open_session(workers=1) as second:
        submit: Any = second.submit
        ref, other = first.put(_BLOCK), first.put(3)
        check_equal(submit(len, ref).result(LIMIT), len(_BLOCK))
        check_equal(submit(work.total, [other, {"a": other}]).result(LIMIT), 6)


@case("stores")
def a_ref_of_another_session_inside_an_object_is_refused(open_session: OpenSession) -> None:
    """A ref that its session's workers alone can read is not sent to others."""
    with open_session(workers=1) as first, open_session(workers=1) as second:
        ref = first.put(_BLOCK)
        error = second.submit(work.measure, work.Carrier(ref)).exception(LIMIT)
        check(isinstance(error, mh.InvalidArgumentError), f"found {error!r}")
        check("another session" in str(error), str(error))
        check_equal(first.submit(work.measure, work.Carrier(ref)).result(LIMIT), len(_BLOCK))


@case("stores")
def a_ref_ends_with_its_session(open_session: OpenSession) -> None:
    """After the session's end a ref says so, and what was got before stays."""
    with open_session(workers=1) as session:
        ref = session.put(_BLOCK)
        got = ref.get()
    check_equal(ref.place, "gone")
    check("gone" in repr(ref), repr(ref))
    with expect(mh.SessionClosedError):
        ref.get()
    check(got == _BLOCK, "a value that was got has changed")


@case("stores")
def the_memory_report_names_values(open_session: OpenSession) -> None:
    """The report tells each value's size, kind, place and holders, and all that is taken."""
    with open_session(workers=1) as session:
        ref = session.put(bytearray(_BLOCK))
        report = session.memory()
        (value,) = [value for value in report.values if value.id == ref.id]
        check_equal((value.kind, value.place, value.nbytes), ("bytearray", "memory", ref.nbytes))
        check(len(_BLOCK) <= value.nbytes <= report.used <= report.limit, str(report))
        check(any("a ref" in holder for holder in value.holders), f"holders: {value.holders}")
        check(report.disk_used == report.spilled == 0, str(report))
        check("bytearray" in str(report), str(report))
        check_equal(report.to_dict()["used"], report.used)


@case()
def every_engine_has_a_memory_report(open_session: OpenSession) -> None:
    """An engine that stores nothing says so in its report."""
    with open_session(workers=1) as session:
        ref = session.put(_BLOCK)
        report = session.memory()
        check_equal(report.engine, session.engine)
        check_equal(bool(report.limit), session.capabilities.stores)
        check(str(report), "the report says nothing")
        check(ref.get() == _BLOCK, "a report changed a value")


@case("stores")
def values_are_freed_with_their_last_holder(open_session: OpenSession) -> None:
    """When ref, calls and results are gone, the report is empty and nothing is taken."""
    with open_session(workers=1) as session:
        submit: Any = session.submit
        ref = session.put(_BLOCK)
        made = submit(work.put_value, _BLOCK).result(LIMIT)
        result = submit(bytes.upper, ref)
        check_equal(submit(work.measure, [ref, made, result]).result(LIMIT), 3 * len(_BLOCK))
        check(len(session.memory().values) >= 2, "values that are needed are gone")
        del ref, made, result
        gc.collect()
        wait_for(lambda: not session.memory().values, "nothing is stored")
        check_equal(session.memory().used, 0)


@case("stores")
def a_waiting_call_keeps_its_value(open_session: OpenSession) -> None:
    """A value lives until the calls that need it have ended, also without a ref."""
    with open_session(workers=1) as session:
        submit: Any = session.submit
        futures = [session.submit(work.nap, 0.05)]
        futures += [submit(len, session.put(_BLOCK[x:])) for x in range(20)]
        check_equal(mh.gather(futures[1:], timeout=LIMIT), [len(_BLOCK) - x for x in range(20)])


@case("stores")
def what_does_not_fit_in_memory_goes_to_disk(open_session: OpenSession) -> None:
    """Values beyond the store's limit come back equal, and the user is told once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_session(workers=1, store="1MB", spill="100MB") as session:
            refs: list[Any] = [session.put(bytes([x]) * 400_000) for x in range(8)]
            found = session.map(sum, refs)
            report = session.memory()
            check(report.spilled > 0 and report.disk_used > 0, str(report))
            check(report.used <= report.limit, str(report))
            check_equal(found, [x * 400_000 for x in range(8)])
            check_equal([len(set(ref.get())) for ref in refs], [1] * 8)
    told = [
        w for w in caught if issubclass(w.category, RuntimeWarning) and "store" in str(w.message)
    ]
    check_equal(len(told), 1)


@case("stores")
def a_full_store_is_an_error(open_session: OpenSession) -> None:
    """What fits neither into memory nor onto the disk raises an error that is a MemoryError and tells sizes."""
    with open_session(workers=1, store="1MB", spill=0) as session:
        ref: Any = session.put(bytes(600_000))
        with expect(mh.StoreFullError) as caught:
            session.put(bytes(600_001))
        check(isinstance(caught.error, MemoryError), "it is no MemoryError")
        check("store=" in str(caught.error), str(caught.error))
        check_equal(len(ref.get()), 600_000)
        check_equal(session.submit(len, ref).result(LIMIT), 600_000)


@case()
def an_engine_without_a_store_refuses_limits(open_session: OpenSession) -> None:
    """Limits of the store are for engines that have one."""
    with open_session(workers=1) as session:
        if session.capabilities.stores:
            return
    with expect(mh.UnsupportedError):
        open_session(workers=1, store="1GB")


@case()
def thousands_of_refs_live_at_once(open_session: OpenSession) -> None:
    """Refs are cheap: many small ones can be held, and used all at once."""
    with open_session(workers=2) as session:
        refs: list[Any] = [session.put((x, "value")) for x in range(3000)]
        check_equal(len(session.submit(work.echo, refs).result(LIMIT)), 3000)
        check_equal(session.map(len, refs), [2] * 3000)
        check_equal([value[0] for value in mh.get(refs)], list(range(3000)))


def _measure_inside(engine: str) -> list[int]:
    ref = mh.put(_BLOCK)
    with mh.Session(engine, workers=1) as inner:
        submit: Any = inner.submit
        return [submit(len, ref).result(LIMIT), submit(len, inner.put(_BLOCK)).result(LIMIT)]


def _put_many(count: int) -> list[mh.Ref[int]]:
    return [mh.put(number) for number in range(count)]


def _put_many_in_one(count: int) -> mh.Ref[list[mh.Ref[int]]]:
    return mh.put(_put_many(count))
