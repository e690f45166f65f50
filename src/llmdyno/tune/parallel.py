"""Trials in parallel: several servers at once, each on a part of the machine of its own.

The search is asked while trials are out (`pending.py`). What fails for a reason that a neighbour
may be, and what a dead lane has left, is measured once more with nothing beside it. What was begun
stands in the ledger, so a study that was killed begins it again. All that decides, from the best
config on, is measured alone, once the lanes are empty.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.machine.devices import Devices, shares
from llmdyno.tune import blame
from llmdyno.tune.alike import leave_out_lacking, none_is_waited_for
from llmdyno.tune.endings import enough, is_doubtful, to_measure_again, trials_left
from llmdyno.tune.entries import Event, Out, Step, key, label
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.lane_checks import LaneChecks, broken
from llmdyno.tune.lanes import Ended, Job, Lanes, once_more, record
from llmdyno.tune.measure import Measurement
from llmdyno.tune.offers import Offered, offered
from llmdyno.tune.patience import Patience
from llmdyno.tune.pending import Asking, Tried
from llmdyno.tune.remaining import outlook
from llmdyno.tune.starts import begin
from llmdyno.tune.steps import error_of, excess
from llmdyno.tune.trials import Trials, ended_from_outside
from llmdyno.units import counted


class ParallelTrials(Trials):
    """The phase of a study that looks for a better config, with several trials at once.

    Args:
        devices: what the trials share out; the lanes that are not alike are left out of it. None:
            no trial is left, and nothing will be begun.
        more: as Trials takes them.
    """

    def __init__(self, devices: Devices | Hosts | None, *more: Any, **named: Any) -> None:
        super().__init__(*more, **named)
        self._shared = devices
        self._waiting: deque[Job] = deque()  # to be begun before anything new
        self._over = False  # nothing new is begun
        self._last_fails = False  # the baseline, in the last lane
        self._known: dict[str, dict[str, float]] = {}  # what SLOs a run missed, by its folder

    @property
    def _devices(self) -> Devices | Hosts:
        assert self._shared is not None, "no trial is left"
        return self._shared

    def run(self, reference: Step | None) -> None:
        """Try configs until there were enough, or the budget or the space is used up.

        Args:
            reference: the baseline as the lanes have measured it; the search knows it first. None:
                the trials ended before they had.
        """
        runner = self._runner
        study, ledger = runner.study, runner.ledger
        self._asking = Asking(self._new_search, study.seed, asked=len(ledger.of("trial")))
        if reference is not None:
            begin(self._asking, runner, reference)
        if not trials_left(ledger, study):
            if blame.looks_broken(ledger) or any(map(blame.lacks_gpu, blame.failed_last(ledger))):
                runner.check_machine()
            self._search = self._asking.told(self._tried())
            return
        self._checks = LaneChecks(runner, self._devices)
        self._announce()
        if reference is not None:
            self._read_reference(reference)
        lanes = self._devices.lanes
        at_once = f"{lanes} at once" if lanes > 1 else "in one lane"
        where = "here alone" if isinstance(self._devices, Hosts) else "on the whole machine"
        runner.say(f"Trials run {at_once}; all that decides runs after them, {where}.")
        self._patience = Patience(study, reference)
        self._over = ledger.last_end is not None
        self._waiting = deque(self._left_over())
        for lease in self._devices.usual:  # a stop may have come before its check had ended
            if self._checks.is_suspect(str(lease)):
                self._check(str(lease))
        over = partial(none_is_waited_for, runner, self._devices)
        with offered(runner, self._devices, over) as running:
            while True:
                self._fill(running)
                ended = running.wait(runner.wait)
                for one in ended:
                    self._take(one)
                leave_out_lacking(runner, self._devices)
                if not ended and running.jobs:  # nobody is there to measure them
                    self._withdraw()
                    break
                if not ended and not self._is_broken() and not self._waiting and self._over:
                    self._give_back(by_lane=False)  # a stop may have come before its lane's check
                    if not self._waiting:
                        break
        self._search = self._asking.told(self._tried())

    # What is begun.

    def _fill(self, running: Lanes | Offered) -> None:
        """Begin what there is room for."""
        if self._is_broken():  # nothing new, until the machine has shown that it works
            if not running.jobs:
                failed = blame.failed_last(self._runner.ledger)
                mended = self._runner.check_machine()
                self._last_fails = False
                self._take_up(self._runner.ledger.out)
                if not mended and isinstance(self._devices, Hosts):  # ours is another machine
                    for host in dict.fromkeys(step.device for step in failed):
                        self._check(host)
            return
        while len(running.jobs) < self._devices.lanes:
            if not self._waiting:
                new = self._next_job(_trials_of(running.jobs))
                if new is None:
                    return
                self._waiting.append(new)
            job = self._waiting[0]
            why = self._too_large(job.gpus)
            if why is not None:  # there were more when the study began it
                self._record_refused(job.number, job.config, why)
            else:
                self._runner.look_around()
                device = running.start(job)
                if device is None:
                    if not running.jobs:  # all is free: it would wait for ever
                        raise AssertionError(f"no part of the machine is for {job}")
                    return
                self._begun(job, device)
            self._waiting.popleft()

    def _begun(self, job: Job, device: str) -> None:
        runner = self._runner
        if job.phase != "trial":
            runner.say(f"  Trials failed on {device}; the baseline shows whether it works.")
            return
        out = Out(
            phase=job.phase,
            number=job.number,
            config=job.config,
            device=device,
            why=job.why,
            alone=job.alone,
        )
        if out not in runner.ledger.out:  # it was begun before a stop
            runner.ledger.append(out)
        ahead = outlook(runner, job.number, job.config, job.why)
        runner.foretell(msgspec.structs.replace(ahead, where=device))

    def _next_job(self, out: Sequence[Job]) -> Job | None:
        """Return a trial that was not tried yet; None: there will be none.

        Args:
            out: the trials that have not ended.
        """
        while not self._ends(out):
            number = 1 + max(self._begun_before(out), default=-1)
            config = self._proposed(number, out)
            if config is None:
                return None
            why = self._refused(number, config)
            if why is None:
                return self._job(number, config, self._why(number))
            self._record_refused(number, config, why)
        return None

    def _record_refused(self, number: int, config: Mapping[str, Value], why: str) -> None:
        refused = Measurement(failure_class="predicted-infeasible", failure_why=why)
        self._runner.record(refused, "trial", number, config)

    def _ends(self, out: Sequence[Job]) -> bool:
        """Tell whether nothing new is to be begun, and say why."""
        runner = self._runner
        trials = runner.ledger.of("trial")
        infeasible = sum(step.state == "predicted-infeasible" for step in trials)
        begun = self._begun_before(out)
        self._over = (
            self._over
            or enough(len(begun), infeasible, runner.study.trials)
            or ended_from_outside(runner)
        )
        return self._over

    def _begun_before(self, out: Sequence[Job]) -> set[int]:
        """Return the numbers of all trials so far."""
        done = {step.number for step in self._runner.ledger.of("trial")}
        return done | {job.number for job in out}

    def _end(self, why: Any, said: str = "", gain: float | None = None) -> None:
        if said:
            self._runner.say(said)
        self._runner.ended(why, gain)
        self._over = True

    def _proposed(self, number: int, out: Sequence[Job]) -> Mapping[str, Value] | None:
        """Return a candidate while there are any, then what the search proposes."""
        if number < len(self._candidates):
            return self._candidates[number]
        tried = self._tried([one.number for one in out])
        configs = [one.config for one in out]
        known = [self._runner.study.baseline, *(one.config for one in tried), *configs]
        config, self._search = self._asking.ask(
            tried, configs, [self._as_proposed(one) for one in known]
        )
        if config is None:
            self._end("space", "Every config that the search can think of has been tried.")
            return None
        if self._patience.ends(self._search, self._steps([one.number for one in out])):
            self._end("patience", self._patience.said, self._patience.gain)
            return None
        return config

    def _refused(self, number: int, config: Mapping[str, Value]) -> str | None:
        """Say why a config cannot work, or can never have as many GPUs as it takes."""
        return super()._refused(number, config) or self._too_large(self._gpus(config))

    def _too_large(self, gpus: int) -> str | None:
        if self._devices.fits(gpus):
            return None
        have = counted(self._devices.parts, "GPU") if self._devices.by_gpu else "cores alone"
        return f"it takes {counted(gpus, 'GPU')}, and the lanes have {have}."

    def _gpus(self, config: Mapping[str, Value]) -> int:
        try:
            return self._runner.stack.gpus(config)
        except UsageError:  # it tells when it is started
            return self._devices.each if self._devices.by_gpu else 0

    def _job(
        self, number: int, config: Mapping[str, Value], why: str, *, alone: bool = False
    ) -> Job:
        return Job(
            phase="trial",
            number=number,
            config=dict(config),
            load=self._runner.trial_load(),
            gpus=self._gpus(config),
            why=why,
            alone=alone,
        )

    def _left_over(self) -> Iterator[Job]:
        """Yield what a study that was stopped had begun, and what it was to measure once more."""
        ledger = self._runner.ledger
        for out in ledger.out:
            yield self._job(out.number, out.config, out.why, alone=out.alone)
        for step in to_measure_again(ledger):
            yield self._job(step.number, step.config, _doubt_of(step), alone=True)

    def _withdraw(self) -> None:
        """Write down that what was begun, or was to be measured once more, will not be."""
        ledger = self._runner.ledger
        again = [(job.phase, 0, job.number) for job in _trials_of(self._waiting)]
        void = dict.fromkeys([*map(key, ledger.out), *again])
        ledger.append(Event(kind="withdrawn", why="no host was there", void=tuple(void)))
        self._waiting.clear()
        names = ", ".join(label(phase, number) for phase, _, number in void)
        self._runner.say(f"  No host is there; not measured: {names}.")

    # What came.

    def _take(self, ended: Ended) -> None:
        """Write down what came of a lane; measure once more, alone, what others may have harmed."""
        job = ended.job
        if (again := once_more(self._runner, ended)) is not None:
            if again.phase == "check":
                self._waiting.appendleft(again)
            else:
                self._retry(again, "its process was stopped")
            return
        if ended.measurement is None and job.phase == "trial" and not job.alone:
            self._runner.say(f"  {job.name}: its process was lost ({ended.lost_why}).")
            dropped_s = job.dropped_s + ended.wall_s
            self._retry(msgspec.structs.replace(job, dropped_s=dropped_s), "its process was lost")
            return
        hosts = isinstance(self._devices, Hosts)
        if ended.measurement is None and job.phase == "check" and hosts:
            self._checks.ended(job.device)  # that a worker is lost tells nothing of its machine
            return
        if self._failed_where_nothing_counts(ended):
            ended.recorded()
            self._retry(job, f"{ended.device} is left out")
            return
        step = record(self._runner, ended)
        if step.phase == "check":
            self._checks.ended(step.device)
            if step.state == "failed" and self._devices.lanes_without(step.device):
                self._leave_out(step)
            elif step.state == "failed" and hosts:
                why = f"{step.device}: {broken(step)} No other host is left."
                raise blame.stopped(self._runner.ledger, why, step)
            elif step.state == "failed":  # no lane would be left: it is the machine
                self._last_fails = True
            else:
                self._give_back()
            return
        if step.state != "failed":
            self._give_back()
        if is_doubtful(step):
            self._retry(msgspec.structs.replace(job, dropped_s=0.0), _doubt_of(step))
        if self._checks.is_suspect(step.device):
            self._check(step.device)
        elif blame.lacks_gpu(step) and not self._checks.by_lane:
            self._last_fails = True

    def _give_back(self, *, by_lane: bool = True) -> None:
        """Begin again what found no GPU, now that its lane has shown that it works."""
        runner = self._runner
        void = blame.give_back(runner.ledger, runner.stack.knobs, runner.say, by_lane=by_lane)
        self._take_up(out for out in runner.ledger.out if key(out) in void)

    def _failed_where_nothing_counts(self, ended: Ended) -> bool:
        """Tell whether a trial has failed on a host that was left out after it had begun."""
        left_out = {name for event in self._runner.ledger.lanes_left_out for name in event.devices}
        failed = ended.measurement is not None and ended.measurement.failure_class is not None
        return failed and ended.job.phase == "trial" and ended.device in left_out

    def _check(self, suspect: str) -> None:
        """Let the baseline show next whether a lane works where trials failed."""
        self._waiting.extendleft(self._checks.of(suspect, self._gpus(self._runner.study.baseline)))

    def _leave_out(self, check: Step) -> None:
        """Leave out a lane in which the baseline fails; what failed there comes back."""
        runner, why = self._runner, broken(check)
        void = blame.failed_there(runner.ledger, check.device)
        runner.ledger.append(Event(kind="lane", why=why, devices=(check.device,), void=void))
        self._devices.leave_out(check.device)
        self._devices.hide_left_out()
        self._waiting = deque(job for job in self._waiting if not shares(job.device, check.device))
        self._checks.ended(check.device)
        runner.say(f"  ! {check.device}: {why} It is left out; what failed there is tried again.")
        self._take_up(out for out in runner.ledger.out if key(out) in void)

    def _take_up(self, begun: Iterable[Out]) -> None:
        """Let what was begun and does not count be begun again."""
        waiting = {job.number for job in _trials_of(self._waiting)}
        self._waiting.extend(
            self._job(out.number, out.config, out.why, alone=out.alone)
            for out in begun
            if out.number not in waiting
        )

    def _retry(self, job: Job, why: str) -> None:
        self._runner.say(f"  {job.name} is measured once more, with nothing beside it.")
        self._waiting.append(msgspec.structs.replace(job, why=why, alone=True))

    def _is_broken(self) -> bool:
        """Tell whether so much has failed that the machine must show that it works."""
        if self._last_fails:
            return True
        ledger = self._runner.ledger
        return blame.is_suspect(ledger) and not self._checks.explains(blame.failed_last(ledger))

    def _steps(self, out: Sequence[int] = ()) -> list[Step]:
        """Return the trials that have come to an end, but for those that are measured again."""
        waiting = {*out, *(job.number for job in _trials_of(self._waiting))}
        return [step for step in self._runner.ledger.of("trial") if step.number not in waiting]

    def _tried(self, out: Sequence[int] = ()) -> list[Tried]:
        """Return what the search is told: of each trial its config and what came of it."""
        study = self._runner.study
        return [
            Tried(
                config=step.config,
                value=step.value,
                missed=self._missed(step),
                error=error_of(step, maximise=study.objective.maximise)
                if step.state == "pruned"
                else 0.0,
            )
            for step in self._steps(out)
        ]

    def _missed(self, step: Step) -> dict[str, float]:
        if not step.run:
            return {}
        if step.run not in self._known:
            self._known[step.run] = excess(self._runner.study, self._runner.folder, step)
        return self._known[step.run]


def _trials_of(jobs: Iterable[Job]) -> list[Job]:
    """Return the trials among jobs; checks are numbered by themselves."""
    return [job for job in jobs if job.phase == "trial"]


def _doubt_of(step: Step) -> str:
    return f"others ran beside it when it failed ({step.failure_class})"
