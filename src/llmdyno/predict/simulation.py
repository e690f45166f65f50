"""A server under a load, simulated by the scheduler that its rules describe."""

from llmdyno.predict.partly import Partly
from llmdyno.predict.rules import Happened, Load, Rules
from llmdyno.predict.schedule import Simulation
from llmdyno.predict.steptime import StepTime


def simulate(rules: Rules, time: StepTime, load: Load) -> Happened:
    """Return what a client would see of a server with these rules under this load."""
    return (Partly if rules.partly else Simulation)(rules, time, load).run()
