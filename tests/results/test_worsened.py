"""What is worse in the winner."""

from llmdyno.results import worsened
from report_samples import study


def test_what_got_worse_is_told_at_its_level() -> None:
    document = study()
    assert worsened.what_got_worse(document) == []
    document["best"]["summary"]["levels"][1]["ttft_ms"]["p99"] = 21 * 6210
    (said,) = worsened.what_got_worse(document)
    assert said == "at 50 users the 99th-percentile time to first token is 21 times as long"
