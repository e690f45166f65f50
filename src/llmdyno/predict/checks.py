"""What no engine would take of a config, refused before anything is predicted."""

import math
from collections.abc import Mapping, Sequence

from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.predict.options import Option, Site
from llmdyno.predict.server import scheduling_of


def check_longest(site: Site, config: Mapping[str, Value], knobs: Sequence[Knob]) -> None:
    """Refuse a config whose longest sequence is shorter than a request: the engine refuses all.

    Raises:
        UsageError: names the knob and what would be right.
    """
    own = site.typical
    asked = site.isl.typical + site.osl.typical if own is None else own.prompt + own.answer
    for knob in knobs:
        value = config.get(knob.name)
        if knob.means == "longest sequence" and isinstance(value, int) and 0 < value < asked:
            raise UsageError(
                f"{knob.name}={value}: {site.engine} would refuse a request of {asked:,.0f} tokens,"
                f" prompt and output; set at least {math.ceil(asked)}, or leave it out."
            )


def check_gpus(site: Site, config: Mapping[str, Value]) -> None:
    """Refuse a config that takes more GPUs than there are.

    Raises:
        UsageError: names the knobs that share the work out, and the sum.
    """
    needs = Option(site=site, config=config).gpus_each
    if needs <= site.gpus:
        return
    rules = scheduling_of(site.engine).under(config)
    spread = {
        knob: config[knob]
        for knob in (rules.gpus, rules.stages, rules.copies)
        if config.get(knob, 1) != 1
    }
    product = " x ".join(map(str, spread.values()))
    raise UsageError(
        f"{' '.join(f'{knob}={value}' for knob, value in spread.items())}: takes"
        f" {f'{product} = ' if len(spread) > 1 else ''}{needs} GPUs, and there"
        f" {'is' if site.gpus == 1 else 'are'} {site.gpus}; give --gpus {needs}, or set fewer."
    )
