"""How it was measured, in sentences: the method behind the figures of a page."""

from llmdyno.report import documents
from llmdyno.report.documents import Document
from llmdyno.results import conclusions, findings, titles, wording
from llmdyno.units import counted, show_seconds

RUN = (
    "Each read of a response is stamped in nanoseconds; all figures are derived from the stamps.",
    "Figures count inside a window: what follows the ramp, from where the token rate is steady.",
    "The interval of one run is a block bootstrap over its time, which says nothing of other runs.",
    "Failed requests are in no latency; they are counted beside them.",
)


def of_study(study: Document) -> tuple[str, ...]:
    """Return how the study went on from its baseline to its verdict."""
    trials = conclusions.started(study)
    trial_s = documents.number(study, "spec", "trial_duration_s")
    seed = documents.number(study, "spec", "seed")
    long = f", each for {show_seconds(trial_s)}" if trial_s else ""
    sampler = documents.text(study, "spec", "sampler")
    by = f" by the sampler {sampler}" if sampler else ""
    drawn = f" with seed {wording.count(seed)}" if seed is not None else ""
    objective = titles.in_words(documents.text(study, "objective"))
    slos = " and ".join(documents.texts(study, "slo"))
    within = f", among configs that meet {slos}" if slos else ""
    pairs = documents.number(study, "confirmation", "pairs")
    stays = findings.stands(study)
    rival = conclusions.compared(study) if stays and pairs else "winner"
    proof = (
        f"Then baseline and {rival} ran again in {counted(pairs, 'pair')} in the order A B B A,"
        " each on a fresh server; only these runs decide. The interval of a ratio is one between"
        " runs, a run being one observation."
        if pairs
        else "No pairs of baseline and winner were run, so nothing is confirmed."
    )
    tried = (
        f"{counted(len(trials), 'config')} {'was' if len(trials) == 1 else 'were'} tried{long},"
        f" proposed{by}{drawn}, for the best {objective}{within}."
    )
    rows = documents.items(study, "ablation")
    ablation = "What each setting gives by itself was not measured."
    if len(rows) == 1 and "pairs" not in rows[0]:
        ablation = "The only setting that differs needed no run more: the pairs have put it back."
    elif rows:
        ablation = (
            "Changed settings were put back in the winner one at a time: what is lost is what one"
            " gave."
        )
    best = "" if stays else ", and so was the best config of the trials"
    served = f"The baseline was measured at every level{best}."
    return (tried, served, proof, ablation, *RUN)
