"""Calls that a type checker must reject: exactly the lines that are marked.

Never run. `test_typing.py` compares the marks with what mypy says.
"""

import manyhands as mh


def double(x: int) -> int:
    return 2 * x


def area(width: float, height: float) -> float:
    return width * height


@mh.task
def triple(x: int) -> int:
    return 3 * x


words = ["a", "b"]
numbers = [1, 2]

mh.map(double, words)  # error
mh.map(double, numbers, words)  # error
mh.map(double, 3)  # error
mh.map(3, numbers)  # error
mh.map(double, numbers, batch="large")  # error
mh.map(double, numbers, on_error="ignore")  # error
mh.map(double, numbers, retries="twice")  # error
mh.map(double, numbers, retry_on=ValueError())  # error
mh.map(double, numbers, deadline="soon")  # error
mh.map(double, numbers, timeout="long")  # error
mh.map(double, numbers, worker_retries=None)  # error
mh.map(double, numbers, colour="red")  # error
mh.imap(double, words)  # error
mh.imap_unordered(double, words)  # error
squares: list[str] = mh.map(double, numbers)  # error

mh.submit(double, "a")  # error
mh.submit(double)  # error
mh.submit(double, 1, 2)  # error
mh.submit(area, 1.0, "b")  # error
mh.submit(3)  # error
text: mh.Future[str] = mh.submit(double, 1)  # error
double_of_word = mh.submit(str.upper, "a")
mh.submit(double, double_of_word)  # error
mh.submit(double, 1).result() + "a"  # error

triple("a")  # error
triple()  # error
triple.submit("a")  # error
triple.submit(double_of_word)  # error
triple.map(words)  # error
triple.options(retries="many")  # error
triple.options(colour="red")  # error
mh.task(3)  # error
mh.task(retries="two")  # error
mh.task(double, timeout="long")  # error
mh.task(double, cpus="many")  # error
mh.task(double, priority=1.5)  # error
mh.task(double, deadline=5)  # error
triple.options(resources=["licence"])  # error
mh.submit(double, 1).cancel(running="yes")  # error
mh.gather([mh.submit(double, 1)], deadline="soon")  # error
mh.actor(3)  # error
mh.actor(list, restarts="once")  # error
mh.actor(list, speed=3)  # error
mh.find_actor(3)  # error

mh.gather(3)  # error
mh.gather([1, 2])  # error
mh.gather([mh.submit(double, 1)], on_error="ignore")  # error
results: list[str] = mh.gather([mh.submit(double, 1)])  # error
mh.wait([mh.submit(double, 1)], timeout="long")  # error
mh.wait([mh.submit(double, 1)], return_when="SOMETIME")  # error
mh.as_completed([1, 2])  # error

mh.Session(workers="two")  # error
mh.Session("local", initializer=3)  # error
mh.Session("local", colour="red")  # error
mh.Session("local", min_workers="two")  # error
mh.Session("local", resources=["licence"])  # error

with mh.Session("threads", workers=2) as session:
    session.map(double, words)  # error
    session.submit(double, "a")  # error
    names: list[str] = session.map(double, numbers)  # error


mh.Executor(max_workers="two")  # error
mh.Executor().submit(double, "a")  # error
mh.Executor().map(3, numbers)  # error
mh.Pool(processes="two")  # error
mh.Pool().map(3, numbers)  # error
texts: list[str] = mh.Pool().map(double, numbers)  # error


async def later() -> str:
    return await mh.submit(double, 1)  # error


# What is right stays right beside all this.
mh.map(double, numbers)
mh.submit(double, mh.submit(double, 1))
