"""Workers come, die, and go: the parent's side of their lives, and of the template that they are forked from."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

from manyhands.engines.local import messages as m
from manyhands.engines.local.deaths import count_oom_kills, describe_death
from manyhands.engines.local.process import TemplateProcess, WorkerProcess, has_ended
from manyhands.errors import WorkerStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from manyhands.engines.local.engine import LocalEngine
    from manyhands.engines.local.pool_parts import Entry, WorkerState

_STILLBIRTHS = 3
"""Workers in a row that end before they are ready, after which no more are started."""

_ORPHANED = "The template process had ended before; how this worker ended is not known."


_MANY = 64
"""Workers for which the usual limit of a thousand descriptors suffices."""


class Staff:
    """The workers of an engine; used by the leading thread.

    Parameters
    ----------
    engine
        Whose workers they are.
    settings
        What each worker is told at its birth.
    cpus
        Cores that there are.

    Attributes
    ----------
    template : TemplateProcess
    leaving : dict of int to WorkerProcess
        Those that were told to end, and have not.
    most_calls : float
        That one worker of the crew runs.
    """

    def __init__(self, engine: LocalEngine, settings: dict[str, Any], cpus: int) -> None:
        self._engine = engine
        self._settings = settings
        self._cpus = cpus
        self.template = self._start_template()
        self.leaving: dict[int, WorkerProcess] = {}
        self.most_calls = engine.config.max_calls_per_worker or float("inf")
        self._numbers = 0
        self._stillbirths = 0
        self._cores: dict[int, int] = {}
        self._is_preloaded = False
        self._owed: list[int] = []  # stages of workers that a template could not start any more
        self._oom_kills = count_oom_kills()

    def _start_template(self) -> TemplateProcess:
        config = self._engine.config
        env = {} if config.luggage is None else config.luggage.env
        return TemplateProcess(config.workers, self._cpus, env)

    def hire_more(self) -> bool:
        """Have one more worker than the session's, for calls that wait hold theirs; False where there can be none."""
        try:
            return self.hire()
        except OSError:
            self._engine.pool.most_workers = len(self._engine.pool.workers)
            return False

    def note_birth(self) -> None:
        """A worker is ready."""
        self._stillbirths = 0

    def preload(self) -> None:
        """Workers to come will need what sessions are made of."""
        self._is_preloaded = True
        try:
            self.template.channel.send((m.PRELOAD,))
        except OSError:
            return  # it is gone, and the next one is told

    # Coming and going.

    def hire(self, stage: int = 0) -> bool:
        """Have one more worker, of the crew or for an actor; False where it comes with the next template, or never."""
        if self._engine.is_closing:  # nobody would end it
            return False
        self._numbers += 1
        number = self._numbers
        is_host = bool(stage) and self._engine.pool.stages[stage].is_host
        settings = self._settings | {
            "is_host": is_host,
            "is_stage": bool(stage),
            "has_cpus": bool(stage) and self._engine.pool.stages[stage].need.cpu_shares > 0,
            "core": self._choose_core() if not stage else None,
        }
        if number > _MANY:
            raise_descriptor_limit()
        try:
            process = self.template.start_worker(number, settings)
        except (BrokenPipeError, ConnectionResetError):
            self._owed.append(stage)  # the template is gone, and the word of that is on its way
            return False
        self._engine.processes[number] = process
        self._engine.pool.add_worker(number, is_host=is_host, stage=stage)
        self._engine.driver.watch(
            process.channel.fileno(), partial(self._engine.intake.take_messages, process)
        )
        self._engine.driver.watch(
            process.stdout.fd, partial(self._engine.intake.take_output, process)
        )
        self._engine.driver.watch(
            process.stderr.fd, partial(self._engine.intake.take_output, process)
        )
        return True

    def _choose_core(self) -> int | None:
        """The core that the fewest workers keep to, where they are to keep to one."""
        if not self._engine.config.pin:
            return None
        self._cores = {n: core for n, core in self._cores.items() if n in self._engine.processes}
        taken = list(self._cores.values())
        core = min(sorted(os.sched_getaffinity(0)), key=taken.count)
        self._cores[self._numbers] = core
        return core

    def dismiss(self, process: WorkerProcess) -> None:
        """Let an idle worker end."""
        number = process.number
        worker = self._engine.pool.workers[number]
        self._engine.intake.take_messages(process)
        if number not in self._engine.processes:
            return  # what it had sent was the last that was waited for
        self._engine.courier.take_back(process, worker)
        if worker.inflight or worker.joined or self._engine.nesting.is_home(number):
            return  # it had just been sent something, and reads it; or it had just made a call
        self._engine.pool.retire(worker)
        self.leaving[number] = self._engine.processes.pop(number)
        self._engine.nesting.lose(number)
        if self._engine.late_store.current is not None:
            self._engine.late_store.current.lose(number)
        self._engine.driver.unwatch(process.channel.fileno())
        process.channel.close()

    def dismiss_spent(self, process: WorkerProcess, worker: WorkerState) -> None:
        """Let a worker end that has nothing in flight and is to get nothing more, and have another in its place."""
        is_spent = worker.calls >= self.most_calls or worker.is_closing
        is_there = process.number in self._engine.processes and not process.is_orphan
        if not is_there or not is_spent or worker.inflight or worker.stages:
            return
        if worker.joined or self._engine.nesting.is_home(process.number):
            worker.is_closing = True  # others are hired for what waits
            return
        was_closing = worker.is_closing
        worker.is_closing = True
        self.dismiss(process)
        if not was_closing:
            self.hire()

    def dismiss_closing(self) -> None:
        """Let workers end that had nothing to do any more but to hear what became of calls that they had made."""
        for worker in [w for w in self._engine.pool.workers.values() if w.is_closing]:
            if worker.number in self._engine.processes:
                self.dismiss_spent(self._engine.processes[worker.number], worker)

    def renew(self) -> None:
        """Have fresh workers for calls to come."""
        for worker in list(self._engine.pool.crew.values()):
            if worker.is_closing:
                continue
            self._engine.courier.take_back(self._engine.processes[worker.number], worker)
            worker.is_closing = True
            self.hire()
            self.dismiss_spent(self._engine.processes[worker.number], worker)

    def shrink(self) -> None:
        """Let workers go that were needed for a while."""
        for worker in self._engine.pool.list_excess(self.count_kept()):
            process = self._engine.processes.get(worker.number)
            is_home = bool(worker.joined) or self._engine.nesting.is_home(worker.number)
            if process is not None and not is_home:
                self.dismiss(process)

    def count_kept(self) -> int:
        """How many workers stay where there is nothing to do."""
        config = self._engine.config
        return config.workers if config.min_workers is None else config.min_workers

    def end_worker(self, number: int) -> None:
        """End a worker that has no actor any more: at once if it is at a call."""
        worker = self._engine.pool.workers[number]
        worker.is_closing = True
        if worker.inflight:
            self._engine.processes[number].kill()
        else:
            self.dismiss(self._engine.processes[number])

    def tell_actor_gone(self, number: int, actor: int) -> None:
        """A worker that has other actors lets go of one."""
        self._engine.courier.send(self._engine.processes[number], (m.DISMISS, actor))

    # Deaths.

    def take_news(self) -> None:
        """All that the template has sent."""
        channel = self.template.channel
        while True:
            try:
                received = channel.receive(wait=False)
            except (EOFError, OSError):
                self._lose_template()
                return
            if received is None:
                return
            (kind, number, pid, *status), _ = received
            if kind == m.STARTED and number in self._engine.processes:
                self._engine.processes[number].pid = pid
                self._engine.processes[number].send_due()
            elif kind == m.EXITED:
                self.lose(number, status[0])

    def lose(self, number: int, status: int, note: str | None = None) -> None:
        """A worker has ended: its own call fails, what it had not begun runs elsewhere, another takes its place."""
        leaving = self.leaving.pop(number, None)
        if leaving is not None:
            self._engine.intake.take_output(leaving, last=True)
            self._remove(leaving)
            return
        process = self._engine.processes.pop(number)
        worker = self._engine.pool.workers[number]
        self._engine.intake.take_messages(process)
        self._engine.intake.take_journal(process, worker)
        self._engine.courier.take_back(process, worker)
        self._engine.intake.take_output(process, last=True)
        stages = list(worker.stages)
        blamed = self._engine.pool.lose(worker, self._list_begun(process, worker))
        if self._engine.late_store.current is not None:
            self._engine.late_store.current.lose(number)
        self._engine.withdraw(self._engine.nesting.list_made_by(number), set(), running=True)
        self._engine.nesting.lose(number)
        self._engine.statistics.deaths += 1
        endings = [self._engine.limits.endings.get(entry.key) for entry in blamed]
        reasons = [ending.error for ending in endings if ending is not None and ending.error]
        for entry in blamed:
            self._engine.joins.pop(entry.key, None)
            self._blame(entry, process, status, note)
        is_natural = note is None and not process.is_orphan  # else it went with its template
        if is_natural and not blamed and not process.is_ready:
            self._stillbirths += 1
        if stages and not self._engine.is_closing:
            # What one call was ended for tells more than the signal that ended it.
            reason = reasons[0] if reasons else self._describe_end(process, status)
            self._engine.stages.lose(stages, reason)
        stderr = "\n".join(process.stderr.tail)
        self._remove(process)
        if self._engine.broken is not None or self._engine.is_closing:
            return
        if self._stillbirths >= _STILLBIRTHS:
            self._engine.give_up(
                WorkerStartError(f"workers end before they are ready (status {status}). {stderr}")
            )
            return
        # An orphan's place is taken already, and an actor is made again where its session says so.
        if (
            not process.is_orphan
            and not stages
            and len(self._engine.pool.crew) < self._engine.config.workers
        ):
            self.hire()

    def _list_begun(self, process: WorkerProcess, worker: WorkerState) -> list[int]:
        """Keys of the calls that a dead worker was at."""
        if worker.is_host:
            return [*worker.inflight, *worker.joined]
        return [process.get_current(), *worker.joined]

    def _blame(self, entry: Entry, process: WorkerProcess, status: int, note: str | None) -> None:
        """A call was under way when its worker ended."""
        if entry.key in self._engine.limits.endings:
            self._engine.intake.end_early(
                entry, self._engine.limits.conclude(entry.key, None, process.read_stack())
            )
            return
        error = self._describe_death(entry, process, status)
        if note is not None:
            error.add_note(note)
        self._engine.fail(entry, error)

    def _describe_end(self, process: WorkerProcess, status: int) -> BaseException:
        """How a worker ended, for an actor that lived in it."""
        return describe_death("an actor", 0, process.pid, status, list(process.stderr.tail))

    def _describe_death(self, entry: Entry, process: WorkerProcess, status: int) -> BaseException:
        return describe_death(
            entry.function.name,
            entry.key,
            process.pid,
            status,
            list(process.stderr.tail),
            out_of_memory=count_oom_kills() > self._oom_kills,
        )

    def _remove(self, process: WorkerProcess) -> None:
        for fd in (process.channel.fileno(), process.stdout.fd, process.stderr.fd, process.end_fd):
            self._engine.driver.unwatch(fd)
        process.close()

    def _lose_template(self) -> None:
        """The template has ended, and nobody reports on its workers: another begins, with workers of its own."""
        self._engine.driver.unwatch(self.template.channel.fileno())
        status = self.template.close()
        if self._engine.is_closing or self._engine.broken is not None:
            for process in [*self._engine.processes.values(), *self.leaving.values()]:
                process.kill()
            for number in list(self.leaving):
                self.lose(number, status)
            return
        if not self._engine.statistics.starting:
            self._engine.give_up(
                WorkerStartError(
                    f"the template process ended at its start (status {status}); what it wrote stands above. Try "
                    f"`{sys.executable} -S -c pass`, or the engine 'threads'."
                )
            )
            return
        self._stillbirths += 1  # until a worker of the next one is ready
        if self._stillbirths >= _STILLBIRTHS:
            self._engine.give_up(
                WorkerStartError(
                    f"the template process ended again and again before any worker was ready (status {status}); what "
                    f"it wrote stands above"
                )
            )
            return
        self.template = self._start_template()
        self._engine.driver.watch(self.template.channel.fileno(), self.take_news)
        if self._is_preloaded:
            self.preload()
        orphans = list(self._engine.processes.values())
        owed, self._owed = self._owed, []
        for stage in owed:
            if not stage or stage in self._engine.pool.stages:
                self.hire(stage)
        for number in list(self.leaving):  # nobody will say when they have
            self.lose(number, status)
        for process in orphans:
            # Some have been orphans before, and the loss of one may be the end of another.
            if process.end_fd < 0 and process.number in self._engine.processes:
                self._orphan(process)

    def _orphan(self, process: WorkerProcess) -> None:
        """Let a worker without a template end what it is at, and have another in its place at once."""
        worker = self._engine.pool.workers[process.number]
        if not worker.stages:  # an actor's worker has its state, and goes on
            self._engine.pool.disown(worker)
            process.is_orphan = True
            self.hire()
            self._engine.courier.take_back(process, worker)
        try:
            fd = os.pidfd_open(process.pid or 0)
        except OSError:  # it is dead, or never lived
            self.lose(process.number, signal.SIGKILL, _ORPHANED)
            return
        process.end_fd = fd
        self._engine.driver.watch(fd, partial(self._take_end, process))
        if process.is_orphan:
            self.retire(process)

    def _take_end(self, process: WorkerProcess) -> None:
        """An orphan has ended, unless what was seen was of a descriptor that had this number before."""
        if has_ended(process.end_fd):
            self.lose(process.number, signal.SIGKILL, _ORPHANED)

    def retire(self, process: WorkerProcess) -> None:
        """End an orphan once it has nothing to do."""
        worker = self._engine.pool.workers.get(process.number)
        if worker is not None and not worker.inflight and process.number in self._engine.processes:
            process.kill()
            self.lose(process.number, signal.SIGKILL)

    # The end.

    def send_home(self) -> None:
        """Let every worker end: one that idles does so at once."""
        self.leaving.update(self._engine.processes)
        for number, process in self._engine.processes.items():
            self._engine.courier.take_back(process, self._engine.pool.workers[number])
            self._engine.driver.unwatch(process.channel.fileno())
            process.channel.close()
        self._engine.pool.drain()
        for number in self._engine.processes:
            self._engine.nesting.lose(number)
        self._engine.processes.clear()
        self._engine.pool.workers.clear()
        self._engine.pool.crew.clear()

    def end_all(self) -> None:
        """End what has not ended by itself, and the template."""
        for process in self.leaving.values():
            self._engine.intake.take_output(process, last=True)
            self._remove(process)
        self.leaving.clear()
        self._engine.driver.unwatch(self.template.channel.fileno())
        self.template.close()


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as the system lets it have: each worker takes five."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
