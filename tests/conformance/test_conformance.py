"""Every case of the public conformance suite on every engine of this package."""

import pytest

import manyhands as mh
from manyhands.testing.conformance import Case, list_cases, run_all, run_case

ENGINES = {
    "inline": {"engine": "inline"},
    "threads": {"engine": "threads"},
    "local": {"engine": "local"},
    "local-spawn": {"engine": "local", "start_method": "spawn"},
}

# What an engine may lack. A case that needs something else is never left out.
LACKS = {
    "inline": {"concurrent", "interrupts", "isolates", "parallel", "pickles", "stores"},
    "threads": {"interrupts", "isolates", "parallel", "pickles", "stores"},
    "local": set(),
    "local-spawn": set(),
}

# How a worker's process was started matters to what comes into it and to what it leaves behind: the cases of these
# modules. What the parent decides is decided alike for both.
STARTED = {
    "actors",
    "coroutines",
    "crashes",
    "errors",
    "nesting",
    "output",
    "results",
    "sessions",
    "worker_life",
}


def matters(engine: str, case: Case) -> bool:
    """Whether a case is run on an engine here."""
    return engine != "local-spawn" or case.run.__module__.rpartition(".")[2] in STARTED


@pytest.mark.parametrize(
    ("engine", "case"),
    [
        pytest.param(engine, case, id=f"{engine}-{case}")
        for engine in ENGINES
        for case in list_cases()
        if matters(engine, case)
    ],
)
def test_case(engine: str, case: Case) -> None:
    missing = run_case(case, lambda **options: mh.Session(**ENGINES[engine], **options))
    assert set(missing) <= LACKS[engine]


def test_names_and_summaries_are_given() -> None:
    cases = list_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert [case.name for case in cases if not case.summary.endswith(".")] == []


def test_a_failure_is_told_and_does_not_end_the_run() -> None:
    def fail(open_session: object) -> None:
        raise AssertionError("on purpose")

    first, *_ = list_cases()
    bad = Case("bad", fail, "Never holds.")
    needy = Case("needy", fail, "Is not run.", needs=("isolates",))
    outcomes = run_all(lambda **options: mh.Session("inline", **options), [bad, first, needy])
    assert [outcome.passed for outcome in outcomes] == [False, True, False]
    assert [str(outcome) for outcome in outcomes] == [
        "bad: AssertionError('on purpose')",
        f"{first.name}: passed",
        "needy: not run, the engine lacks isolates",
    ]


def test_an_engine_that_breaks_its_word_is_found() -> None:
    """The suite itself sees a wrong engine: here, a session that loses the order of maps."""

    class Wrong(mh.Session):
        def start_map(self, *args, **options):  # type: ignore[no-untyped-def]
            run = super().start_map(*args, **options)
            iterate = run.iterate_parts
            run.iterate_parts = lambda ordered: (part[::-1] for part in iterate(ordered=ordered))  # type: ignore[method-assign]
            return run

    outcomes = run_all(lambda **options: Wrong("threads", **options))
    failed = {outcome.case.name for outcome in outcomes if outcome.error is not None}
    assert {"map_keeps_the_order", "map_takes_any_iterable"} <= failed
