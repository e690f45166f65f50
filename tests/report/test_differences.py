"""What makes two runs unlike is said before anything else."""

from llmdyno import report
from report.page_text import headline, words
from report_samples import summary, tuned_summary


def test_unlike_runs_are_said_to_be_unlike_before_anything_else() -> None:
    after = tuned_summary()
    after["environment"]["cpu"]["cores_usable"] = 64
    after["spec"]["workload"] |= {"name": "chat", "system_prompt": "word " * 900}
    page = report.compare_page(summary(), after)
    text = words(page)
    assert headline(page).startswith(
        "One run each: after is 3.10x the token rate at 100 users; TTFT p50 is 0.212x."
    )
    assert text.index("These runs are not alike.") < text.index("Token rate")
    assert "usable cores: 16 before, 64 after" in text
    assert "workload.name: chat-system before, chat after" in text
    assert "workload.system_prompt: not set before, word word" in text


def test_like_runs_are_not_called_unlike() -> None:
    after = tuned_summary()
    after["environment"]["load_average"] = [0.9, 0.4, 0.5]
    after["spec"]["slos"] = [{"expr": "ttft:p99<2s"}]
    text = words(report.compare_page(summary(), after))
    assert "not alike" not in text
    assert "Each run was made once" in text
