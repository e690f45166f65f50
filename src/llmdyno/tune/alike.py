"""Are the lanes alike? The baseline is measured in all of them at once, as trials are.

Trials of different lanes are compared with each other, so a lane is left out whose baseline fails
twice, or twice differs from the others' by more than equal runs do. Then the rest are measured
again, because they have fewer neighbours. What the lanes come to is what trials are compared with.
"""

import math
from collections.abc import Collection, Sequence
from functools import partial
from typing import NoReturn

from llmdyno.errors import ServerError
from llmdyno.machine.devices import Devices
from llmdyno.results import wording
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.pairs import PRIOR
from llmdyno.results.racing import luck
from llmdyno.results.wording import short
from llmdyno.tune import blame
from llmdyno.tune.entries import Event, Step
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.lanes import Job, once_more, record
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.objectives import require_value
from llmdyno.tune.offers import offered
from llmdyno.tune.reference import baselines_in, mean, of_lanes
from llmdyno.tune.runner import Runner
from llmdyno.tune.trials import given_up
from llmdyno.units import counted

_OF_AN_ENGINE = {"missing-library", "model-not-found", "auth"}  # faults that others may not share


def reference_of_lanes(runner: Runner, devices: Devices | Hosts) -> Step | None:
    """Return the baseline as the lanes measure it at once; those that are not alike are left out.

    Args:
        runner: of the study; its ledger tells what was found before a stop.
        devices: what the lanes share out; what is left out is never leased again.

    Returns:
        What the lanes come to, as reference.of_lanes() has it; None: the trials have ended before
        hosts were there to measure it.

    Raises:
        ServerError: the baseline fails in every lane, or has failed there before a stop.
    """
    ledger = runner.ledger
    for name, alone in ((n, bool(e.stack)) for e in ledger.lanes_left_out for n in e.devices):
        _leave_out(devices, name, alone=alone)
    devices.hide_left_out()
    over = partial(given_up, runner)
    if isinstance(devices, Hosts):
        if not devices.nobody_can and not devices.gather(ledger.lanes_left, runner.wait, over):
            return of_lanes(baselines_in(ledger, ledger.lanes_left)) if ledger.lanes_left else None
        leave_out_lacking(runner, devices)
    if ledger.lanes_left:
        return of_lanes(baselines_in(ledger, ledger.lanes_left))
    if isinstance(devices, Hosts) and devices.stack and devices.nobody_can:
        runner.say("  ! No host can measure it: it has its baseline only.")
        return None
    if not devices.lanes:
        last = ledger.lanes_left_out[-1]
        raise ServerError(
            "died",
            f"every lane was left out, {last.devices[0]} last: {last.why} Mend the machine, and"
            " begin another study.",
        )
    before: set[str] = set()  # the lanes that were odd in an earlier round of the same lanes
    had = _measured_there(ledger) if isinstance(devices, Hosts) else set()  # before a stop
    while True:
        if isinstance(devices, Hosts) and not devices.await_one(runner.wait, over):
            return None
        names = [str(lease) for lease in devices.usual]
        runner.say(f"The baseline in {counted(len(names), 'lane')} at once: {', '.join(names)}.")
        _measure(runner, devices, names, had)
        had = set()
        steps = baselines_in(ledger, names)
        odd = _odd(runner, steps)
        again = [(step, why) for step, why in odd if step.device in before]
        chance = bool(before) and not again and all(step.value is not None for step in steps)
        if not odd or chance:
            ledger.append(Event(kind="lanes", why=_told(runner, steps), devices=tuple(names)))
            devices.admit(names)
            runner.say(f"  {_told(runner, steps)}")
            return of_lanes(steps)
        if len(again) == len(steps):
            _refuse(runner, steps)
        for step, why in again or odd:
            runner.say(f"  ! {step.device}: {why} {'It is left out.' if again else 'Once more.'}")
        for step, why in again:
            _leave_out_odd(ledger, devices, step, why)
        devices.hide_left_out()
        before = set() if again else before | {step.device for step, _ in odd}


def none_is_waited_for(runner: Runner, devices: Devices | Hosts) -> bool:
    """Tell, while no host is there, whether the trials are over, or none can measure them."""
    leave_out_lacking(runner, devices)
    return given_up(runner) or (isinstance(devices, Hosts) and devices.nobody_can)


def leave_out_lacking(runner: Runner, hosts: Devices | Hosts) -> None:
    """Leave out of a combination the hosts that say that they cannot measure it, and tell it."""
    if not isinstance(hosts, Hosts):
        return
    for name, why in hosts.lacking.items():
        runner.ledger.append(Event(kind="lane", why=why, devices=(name,), stack=hosts.stack))
        hosts.leave_out(name, alone=True)
        runner.say(f"  ! {name}: {why} It is left out of this combination.")


def _leave_out_odd(ledger: Ledger, devices: Devices | Hosts, step: Step, why: str) -> None:
    stack = devices.stack if isinstance(devices, Hosts) and _is_its_own(step) else ""
    ledger.append(Event(kind="lane", why=why, devices=(step.device,), stack=stack))
    _leave_out(devices, step.device, alone=bool(stack))


def _leave_out(devices: Devices | Hosts, name: str, *, alone: bool) -> None:
    if isinstance(devices, Hosts):
        devices.leave_out(name, alone=alone)
    else:
        devices.leave_out(name)


def _is_its_own(step: Step) -> bool:
    """Tell whether a baseline that fails in a lane may do so for its engine's sake alone.

    One that is slower than the others' shows that the machine is; what takes a GPU or the disk away
    does so from all engines.
    """
    return step.state == "failed" and step.failure_class not in blame.MACHINES - _OF_AN_ENGINE


def _refuse(runner: Runner, steps: Sequence[Step]) -> NoReturn:
    """Say why no lane can be used.

    Raises:
        ServerError: always.
    """
    failed = [step for step in steps if step.state == "failed"]
    if not failed:
        require_value(runner.study, None, of="the reference", flag="--trial-duration")
    first = failed[0]
    raise ServerError(
        first.failure_class or "died",
        f"the baseline works alone and fails in every lane ({first.device}:"
        f" {first.failure_class}): {first.failure_why}",
    )


def _measured_there(ledger: Ledger) -> set[str]:
    """Return the hosts that have measured the baseline where the study is now.

    They share no machine, so each of these runs is as good as one that is made with the others'.
    """
    references = [step for step in ledger.steps if step.phase == "reference"]
    last = {step.device: step for step in references if step.place == ledger.place}
    return {device for device, step in last.items() if step.state == "measured"}


def _measure(
    runner: Runner, devices: Devices | Hosts, names: Sequence[str], had: Collection[str]
) -> None:
    """Measure the baseline in every lane at once, but for those that `had`; write down what came.

    A lane whose process was stopped is begun again: all trials are compared with what it says.
    """
    study = runner.study
    # What is for a host that is gone is lost: nobody is waited for here.
    with offered(runner, devices, lambda: False) as running:
        for number, name in enumerate(names):
            if name in had:
                continue
            runner.look_around()
            running.start(
                Job(
                    phase="reference",
                    number=number,
                    config=study.baseline,
                    load=runner.trial_load(),
                    gpus=devices.each if devices.by_gpu else 0,
                    races=False,
                    device=name,
                )
            )
        while ended := running.wait(runner.wait):
            for one in ended:
                again = once_more(runner, one)
                if again is None:
                    record(runner, one)
                    continue
                runner.look_around()
                runner.say(f"  {again.name} on {again.device} is begun again.")
                running.start(again)


def _odd(runner: Runner, steps: Sequence[Step]) -> list[tuple[Step, str]]:
    """Return the lanes that are not like the others, each with the reason.

    The others are the largest group that lies around one lane, of two as large the better one.
    """
    study = runner.study
    failed = [
        (step, f"its baseline failed ({step.failure_class}): {_one_line(step.failure_why)}")
        for step in steps
        if step.state == "failed"
    ]
    works = [step for step in steps if step.state != "failed" and step.value is not None]
    found = failed + [
        (step, f"its baseline has no value of {study.objective}.")
        for step in steps
        if step.state != "failed" and step.value is None
    ]
    if not works:
        return found
    sign = 1.0 if study.objective.maximise else -1.0
    # What the study has measured twice are these very lanes: they must not pass for noise.
    most = math.log(luck(max(1, len(works) - 1), PRIOR))

    def near(one: Step) -> list[Step]:
        return [other for other in works if _apart(one, other) <= most]

    centre = max(works, key=lambda step: (len(near(step)), sign * _value(step)))
    group = near(centre)
    apart = wording.share(math.expm1(most))
    others = f"{short(mean(group))}: more than equal runs lie apart ({apart})."
    unit = BY_NAME[study.objective.metric].unit
    for step in works:
        if step not in group:
            value = f"{study.objective} {short(_value(step))} {unit}"
            found.append((step, f"its baseline has {value}, the others {others}"))
    return found


def _value(step: Step) -> float:
    assert step.value is not None
    return step.value


def _apart(one: Step, other: Step) -> float:
    """Return the distance of two values on a logarithmic scale; infinite if only one is 0."""
    low, high = sorted((_value(one), _value(other)))
    if low == high:
        return 0.0
    return math.log(high / low) if low > 0 else math.inf


def _told(runner: Runner, steps: Sequence[Step]) -> str:
    """Say how far apart the lanes are."""
    objective = runner.study.objective
    unit = BY_NAME[objective.metric].unit
    if len(steps) == 1:
        return f"One lane is left: {steps[0].device}, {objective} {short(_value(steps[0]))} {unit}."
    low, high = min(steps, key=_value), max(steps, key=_value)
    return (
        f"The lanes are alike: {objective} {short(_value(low))} to {short(_value(high))} {unit},"
        f" {wording.share(math.expm1(_apart(low, high)), 1)} apart."
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
