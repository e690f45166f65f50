"""lm-eval's tasks in a study: real servers and processes; lm-eval itself where it is installed."""

import json
import math
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmdyno.errors import ServerError, UsageError
from llmdyno.knobs import Value
from llmdyno.processes.launch import Launch
from llmdyno.quality import likelihoods, lm_eval, lm_eval_installed
from llmdyno.results.configs import described
from llmdyno.results.quality import sentences
from llmdyno.serve.stack import load_stack
from llmdyno.tune import checked
from llmdyno.tune.entries import Event
from llmdyno.tune.exam import Exam
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study
from study_lab import Start, StudyLab, fast

QUESTIONS = 20
# Answers the capital where it is asked for an even number, all others too with better=true; dies at
# the first question of a run with dies=true, and says nothing from there on with hangs=true. With
# scores=true it gives the log-probabilities of a prompt of tokens, and knows as much by those.
SERVER = """
import json, os, re, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

hung = []

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if hung:
            time.sleep(60)
        self.answer({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = re.search(r"capital of ([0-9]+)", str(body["prompt"]))
        if found and "dies" in sys.argv:
            os._exit(7)
        if found and "hangs" in sys.argv:
            hung.append(1)
        if hung:
            time.sleep(60)
        if body.get("echo") and "scores" in sys.argv:
            tokens = body["prompt"][0] if isinstance(body["prompt"][0], list) else body["prompt"]
            return self.answer({"choices": [{"index": 0, "logprobs": self.scored(tokens)}]})
        knows = found and (int(found[1]) % 2 == 0 or "better" in sys.argv)
        text = f" city {found[1]}" if knows else " nothing"
        self.answer({"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]})

    def scored(self, tokens):
        knows = tokens[-3] % 2 == 0 or "better" in sys.argv
        numbers = [None, *[-1.0] * (len(tokens) - 2), -1.0 if (tokens[-1] == 1) == knows else -2.0]
        tops = [None, *[{"x": number} for number in numbers[1:]]]
        return {"token_logprobs": [*numbers, -1.0], "top_logprobs": [*tops, {"x": -1.0}]}

    def answer(self, document):
        content = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
# Does what we need of lm-eval: asks each question of a task's file and writes its scores.
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, sys, time, urllib.request

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
settings = dict(one.split("=", 1) for one in given["--model_args"].split(","))
if "fails" in sys.argv:
    sys.exit(f"ValueError: no such thing, {{os.environ['HF_TOKEN']}}")
if "waits" in sys.argv:
    time.sleep(60)
asked = given["--tasks"].split(",")
if (pathlib.Path(os.environ.get("AWAY", "/none")) / ("offline-" + asked[0])).exists():
    sys.exit("ConnectionError: the hub cannot be reached")
if "all" in asked and settings["tokenizer_backend"] == "None":
    sys.exit("AssertionError: Tokenizer is required for loglikelihood tasks")
place = pathlib.Path(given["--output_path"], "m")
place.mkdir(parents=True)
(place / "asked").write_text(given["--tasks"])
lines = []
for number in range({QUESTIONS}):
    body = {{"prompt": f"The capital of {{number}} is", "model": settings["model"]}}
    question = urllib.request.Request(settings["base_url"], json.dumps(body).encode())
    reply = urllib.request.urlopen(question, timeout=float(settings["timeout"]))
    text = json.load(reply)["choices"][0]["text"]
    right = float(text == f" city {{number}}")
    lines.append({{"doc_id": number, "filter": "none", "metrics": ["acc"], "acc": right}})
mean = sum(line["acc"] for line in lines) / len(lines)
name = asked[0] if asked[0] != "all" else "capitals"
results = {{"results": {{name: {{"acc,none": mean}}}}, "lm_eval_version": "stand-in"}}
results["configs"] = {{"capitals": {{"output_type": os.environ.get("TYPE", "generate_until")}}}}
if "all" in asked:
    if "capitals" not in asked:
        results["results"], results["configs"], lines = {{}}, {{}}, []
    results["results"] |= {{"choices": {{"acc,none": 0.25}}, "group": {{"acc,none": 0.25}}}}
    results["configs"]["choices"] = {{"output_type": "multiple_choice"}}
    results["group_subtasks"] = {{"all": ["group"], "group": ["choices"], "capitals": []}}
(place / "results_2026.json").write_text(json.dumps(results))
samples = "".join(json.dumps(line) + chr(10) for line in lines)
(place / "samples_capitals_2026-11-29.jsonl").write_text(samples)
"""
TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
output_type: generate_until
test_split: train
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
CHOICES = """
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
output_type: multiple_choice
test_split: train
doc_to_text: "{{{{q}}}}"
doc_to_choice: ["right", "wrong"]
doc_to_target: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


class Lab:
    """A study's folder with an examination whose servers are real; what was said is kept."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        tasks: tuple[str, ...] = ("capitals",),
        model: str = "m",
        always: tuple[str, ...] = (),
    ) -> None:
        self._always = always  # of what every server does
        self.said: list[str] = []
        self.launched: list[dict[str, Value]] = []
        self.folder = folder
        self.left_s = math.inf  # of the budget
        folder.mkdir(exist_ok=True)
        runner: Any = SimpleNamespace(
            study=Study(lm_eval=tasks, lm_eval_args=arguments, model=model, hang_s=1.0),
            folder=folder,
            stack=SimpleNamespace(build=lambda *_, **__: None, launch=self._launch),
            say=self.said.append,
            wait=lambda _: None,
            over_budget=lambda _: self.left_s <= 0,
            left_s=lambda: self.left_s,
            ledger=Ledger(folder),
            look_around=lambda: None,
            named=described,
        )
        self.ledger: Ledger = runner.ledger
        self.exam = Exam(runner, runner, folder, ("", ""))

    def _launch(self, config: Mapping[str, Value], *, port: int, **_: Any) -> Launch:
        self.launched.append(dict(config))
        return Launch(
            argv=(sys.executable, "-c", SERVER, str(port), *config, *self._always),
            url=f"http://127.0.0.1:{port}",
            endpoint="openai-chat",
            model="m",
        )

    def document(self) -> dict[str, Any]:
        (one,) = checked.read(self.folder).examined
        return one.document


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "bin"
    place.mkdir()
    (place / "lm_eval").write_text(STAND_IN)
    (place / "lm_eval").chmod(0o755)
    monkeypatch.setattr(lm_eval_installed, "program", lambda: str(place / "lm_eval"))


@pytest.mark.usefixtures("stand_in")
def test_winner_and_baseline_answer_once_each(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "study")
    assert lab.exam.compare({"better": True}) is None
    assert lab.said[-1] == (
        "  lm-eval, capitals: acc 1, the baseline's 0.5; +0.5 [0.192, 0.5] over 20 questions:"
        " better."
    )
    document = checked.told(lab.folder, {"better": True})
    assert document is not None
    assert document["lm_eval"]["tasks"][0]["verdict"] == "better"
    assert document["comparison"] is None  # --no-quality

    again = Lab(lab.folder)
    assert again.exam.compare({"better": True}) is None
    assert again.launched == []
    again.exam.compare({"other": True})  # the baseline is not asked again
    assert again.launched == [{"other": True}]
    assert again.said[-1].endswith("+0 [-0.0891, 0.0891] over 20 questions: no difference.")


@pytest.mark.usefixtures("stand_in")
def test_an_examination_is_charged_to_the_study(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "study")
    begin_s = time.monotonic()
    lab.exam.compare({"better": True})
    took_s = time.monotonic() - begin_s

    charged = [event.charged_s for event in lab.ledger.events if event.kind == "asked"]
    assert len(charged) == 2  # the baseline's and the winner's
    assert 0 < sum(charged) <= took_s
    assert Ledger(lab.folder).spent_s == lab.ledger.spent_s == pytest.approx(sum(charged))


@pytest.mark.usefixtures("stand_in")
def test_a_budget_ends_an_examination_and_the_document_says_so(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "study", "waits")
    lab.left_s = 0.2
    assert lab.exam.compare({"better": True}) is None
    said = "lm-eval has compared nothing: the budget was used up while it asked."
    assert lab.said[-1] == f"  {said}"
    document = checked.told(lab.folder, {"better": True})
    assert document is not None
    assert sentences(document) == [said]

    before = Lab(tmp_path / "another")
    before.left_s = 0.0
    assert before.exam.compare({}) is None
    assert before.launched == []
    document = checked.told(before.folder, {})  # a winner may have no setting of its own
    assert document is not None
    assert sentences(document) == [
        "lm-eval has compared nothing: the budget was used up before it could ask."
    ]
    before.left_s = math.inf  # --resume with more of it
    before.exam.compare({})
    assert before.document()["tasks"]


@pytest.mark.usefixtures("stand_in")
def test_the_baseline_is_asked_again_where_the_study_goes_on_in_another_place(
    tmp_path: Path,
) -> None:
    lab = Lab(tmp_path / "study")
    lab.exam.compare({"better": True})
    lab.ledger.append(Event(kind="moved", why="m 1 → m 2"))
    lab.launched.clear()

    lab.exam.compare({"other": True})
    lab.exam.compare({"better": True, "other": True})

    assert lab.launched == [{}, {"other": True}, {"better": True, "other": True}]


@pytest.mark.usefixtures("stand_in")
def test_a_server_that_dies_under_it_is_the_winners_fault(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "study")
    fault = lab.exam.compare({"dies": True})
    assert fault is not None
    assert "while lm-eval asked it: The server ended with exit status 7" in str(fault)
    assert lab.said[-1].startswith("  lm-eval has compared nothing: while lm-eval asked it")
    assert checked.read(lab.folder).scores is not None  # the baseline's are kept
    lab.exam.compare({"dies": True})
    assert lab.launched.count({"dies": True}) == 2  # it is tried again


@pytest.mark.usefixtures("stand_in")
def test_a_failure_of_lm_evals_is_no_fault_of_the_server_and_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very-secret-4711")
    lab = Lab(tmp_path / "study", "fails")
    assert lab.exam.compare({"better": True}) is None
    why = lab.document()["why"]
    assert "ValueError: no such thing" in why
    assert "lm-eval.log" in why
    kept = [path for path in lab.folder.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"very-secret" in path.read_bytes()]


@pytest.mark.usefixtures("stand_in")
def test_a_server_that_hangs_under_it_has_hung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_eval, "_TIMEOUT_S", 1)
    lab = Lab(tmp_path / "study")
    begin_s = time.monotonic()
    fault = lab.exam.compare({"hangs": True})
    assert fault is not None
    assert fault.kind == "hung"
    said = "while lm-eval asked it: the server lives but made no token within 1 s."
    assert str(fault) == said
    assert lab.document()["why"] == said
    assert time.monotonic() - begin_s < 30


@pytest.mark.usefixtures("stand_in")
def test_scores_of_probabilities_that_the_server_does_not_give_are_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval does not notice; a group's tasks are known when it has ended."""
    monkeypatch.setenv("TYPE", "multiple_choice")
    lab = Lab(tmp_path / "study")
    assert lab.exam.compare({"better": True}) is None
    said = (
        "capitals: compares probabilities, and this server gives no log-probabilities of a"
        " prompt's tokens (echo with logprobs in /v1/completions); take tasks whose answers are"
        " generated."
    )
    assert lab.document()["why"] == said
    known = Lab(tmp_path / "known", tasks=(_choices(tmp_path),))
    known.exam.compare({})
    assert known.document()["why"].startswith(f"{_choices(tmp_path)}: compares probabilities")
    assert not list(known.folder.rglob("lm-eval.log"))  # lm-eval was not begun
    able = Lab(tmp_path / "able", always=("scores",))
    able.exam.compare({"better": True})
    assert able.document()["tasks"]


@pytest.mark.usefixtures("stand_in")
def test_other_tasks_keep_their_scores_beside_those_that_compare_probabilities(
    tmp_path: Path,
) -> None:
    """One task of a group had thrown away what all others came to, the baseline's, too."""
    model = _words(tmp_path / "model")
    lab = Lab(tmp_path / "study", tasks=("capitals", "all"), model=model)
    assert lab.exam.compare({"better": True}) is None

    (row,) = lab.document()["tasks"]
    assert (row["task"], row["verdict"]) == ("capitals", "better")
    assert [one["task"] for one in lab.document()["dropped"]] == ["all", "choices", "group"]
    said = (
        "  lm-eval has no score of all, choices, group: probabilities are compared there, and this"
        " server gives no log-probabilities of a prompt's tokens"
    )
    assert lab.said[-1].startswith(said)
    scores = checked.read(lab.folder).scores
    assert scores is not None
    assert [one.task for one in scores.scores] == ["capitals"]
    able = Lab(tmp_path / "able", tasks=("capitals", "all"), model=model, always=("scores",))
    able.exam.compare({"better": True})
    assert [one["task"] for one in able.document()["tasks"]] == ["capitals", "choices", "group"]
    assert able.document()["dropped"] == []
    assert {file.read_text() for file in able.folder.rglob("asked")} == {"capitals,all"}


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("always", [(), ("scores",)])
@pytest.mark.parametrize("tasks", [("capitals", "all"), ("all", "capitals")])
def test_other_tasks_keep_their_scores_beside_a_group_at_which_lm_eval_fails(
    tmp_path: Path, tasks: tuple[str, ...], always: tuple[str, ...]
) -> None:
    """A group is not known to compare probabilities: without a tokenizer lm-eval ends at it."""
    lab = Lab(tmp_path / "study", tasks=tasks, always=always)
    assert lab.exam.compare({"better": True}) is None

    (row,) = lab.document()["tasks"]
    assert (row["task"], row["questions"], row["verdict"]) == ("capitals", QUESTIONS, "better")
    (dropped,) = lab.document()["dropped"]
    assert dropped["task"] == "all"
    assert "AssertionError: Tokenizer is required for loglikelihood tasks" in dropped["why"]
    assert lab.said[-1].startswith("  lm-eval has no score of all: lm-eval: ")
    assert len(lab.launched) == 2  # one server each answers all of its tasks
    alone = Lab(tmp_path / "alone", tasks=("all",), always=always)
    alone.exam.compare({"better": True})
    assert "AssertionError: Tokenizer is required" in alone.document()["why"]


@pytest.mark.usefixtures("stand_in")
def test_a_task_at_which_lm_eval_failed_is_asked_again_when_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline's failure had stuck: no later process asked that task again."""
    monkeypatch.setenv("AWAY", str(tmp_path))
    away = tmp_path / "offline-more"
    away.touch()
    study, winner = tmp_path / "study", {"better": True}
    lab = Lab(study, tasks=("capitals", "more"))
    lab.exam.compare(winner)
    assert [one["task"] for one in lab.document()["dropped"]] == ["more"]
    lab.exam.compare(winner)
    assert len(lab.launched) == 2  # once in a process

    still = Lab(study, tasks=("capitals", "more"))
    still.exam.compare(winner)
    assert still.launched == [{}]  # where it fails for the baseline nothing is compared
    assert [one["task"] for one in still.document()["dropped"]] == ["more"]
    assert len(still.document()["tasks"]) == 1  # nothing that was measured is lost

    away.unlink()
    mended = Lab(study, tasks=("capitals", "more"))
    mended.exam.compare(winner)
    assert mended.launched == [{}, winner]
    assert mended.document()["dropped"] == []
    assert len(mended.document()["tasks"]) == 2
    last = max((study / "lm-eval").iterdir(), key=lambda place: place.stat().st_mtime_ns)
    assert [file.read_text() for file in last.rglob("asked")] == ["more"]
    again = Lab(study, tasks=("capitals", "more"))
    again.exam.compare(winner)
    assert again.launched == []


@pytest.mark.usefixtures("stand_in")
def test_a_task_that_was_not_asked_once_more_is_asked_in_a_later_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three tasks one came back and one did not: the winner had no score of that one for good.

    It fails for the baseline first, so that the winner is not asked it in that process.
    """
    monkeypatch.setenv("AWAY", str(tmp_path))
    study, winner, tasks = tmp_path / "study", {"better": True}, ("capitals", "more", "third")
    away = [tmp_path / f"offline-{task}" for task in tasks[1:]]
    for one in away:
        one.touch()
    Lab(study, tasks=tasks).exam.compare(winner)
    away[1].unlink()
    some = Lab(study, tasks=tasks)
    some.exam.compare(winner)
    assert [row["task"] for row in some.document()["tasks"]] == ["capitals", "third"]
    assert [one["task"] for one in some.document()["dropped"]] == ["more"]

    away[0].unlink()
    all_of_it = Lab(study, tasks=tasks)
    all_of_it.exam.compare(winner)
    assert all_of_it.launched == [{}, winner]
    assert [row["task"] for row in all_of_it.document()["tasks"]] == ["capitals", "third", "more"]
    assert all_of_it.document()["dropped"] == []


@pytest.mark.usefixtures("stand_in")
def test_a_winner_that_dies_at_a_task_that_is_asked_once_more_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scores are kept, and it is to be started again, as one that dies at the first time."""
    monkeypatch.setenv("AWAY", str(tmp_path))
    away = tmp_path / "offline-more"
    away.touch()
    study, winner, tasks = tmp_path / "study", {"better": True}, ("capitals", "more")
    Lab(study, tasks=tasks).exam.compare(winner)
    away.unlink()
    Lab(study, tasks=tasks).exam.compare({"other": True})  # the baseline has all its scores

    lab = Lab(study, tasks=tasks, always=("dies",))
    fault = lab.exam.compare(winner)

    assert lab.launched == [winner]
    assert fault is not None
    assert fault.kind == "died"
    found = checked.told(study, winner)
    assert found is not None
    assert [row["task"] for row in found["lm_eval"]["tasks"]] == ["capitals"]


@pytest.mark.usefixtures("stand_in")
def test_a_group_that_may_compare_probabilities_is_counted_by_the_hubs_tokenizer(
    tmp_path: Path,
) -> None:
    """Only tasks known to compare them had got it: a group had no score of a hub's model."""
    lab = Lab(tmp_path / "study", tasks=("all",), model="org/model", always=("scores",))
    assert lab.exam.compare({"better": True}) is None

    assert [one["task"] for one in lab.document()["tasks"]] == ["choices", "group"]
    assert lab.document()["dropped"] == []


@pytest.mark.usefixtures("stand_in")
def test_a_task_that_is_known_to_compare_probabilities_is_not_asked(tmp_path: Path) -> None:
    task = _choices(tmp_path)
    lab = Lab(tmp_path / "study", tasks=("capitals", task))
    assert lab.exam.compare({"better": True}) is None

    assert [row["task"] for row in lab.document()["tasks"]] == ["capitals"]
    assert [one["task"] for one in lab.document()["dropped"]] == [task]
    assert {file.read_text() for file in lab.folder.rglob("asked")} == {"capitals"}


def _choices(folder: Path) -> str:
    """Write a task of questions with two given answers each, of which the first is right."""
    data, task = folder / "choices.jsonl", folder / "choices.yaml"
    rows = [{"q": f"capital of {number} is"} for number in range(QUESTIONS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task.write_text(CHOICES.format(data=data))
    return str(task)


def _words(folder: Path) -> str:
    """Write a model's folder whose tokens are the task's words."""
    words = ["wrong", "right", "capital", "of", "is", "[UNK]"]
    vocabulary = {word: at for at, word in enumerate(words)}
    vocabulary |= {str(number): 100 + number for number in range(QUESTIONS)}
    folder.mkdir()
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    config |= {"pad_token": "[UNK]", "eos_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


# In a study.


@pytest.mark.parametrize("fault", [None, ServerError("died", "it died")])
def test_it_comes_after_the_ablation_and_a_winner_that_dies_in_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: ServerError | None
) -> None:
    lab = StudyLab(tmp_path / "s", monkeypatch)
    asked: list[tuple[Mapping[str, Value], str]] = []

    def compare(_: Exam, winner: Mapping[str, Value]) -> ServerError | None:
        asked.append((winner, lab.starts[-1].phase))
        return fault

    def world(start: Start) -> tuple[float, float] | str:
        return "died" if start.phase == "check" and start.config else fast(start)

    monkeypatch.setattr(Exam, "compare", compare)
    monkeypatch.setattr(lm_eval, "require", lambda *_: None)
    monkeypatch.setattr(likelihoods, "require", lambda *_: None)
    wins = {"fast": True, "itl_ms": 10}
    study = lab.study(lm_eval="capitals", search="fast,itl_ms", candidates=[wins])

    document = lab.run(world, study)

    assert asked == [(wins, "ablation")]
    if fault is None:
        assert document["best"]["config"] == wins
        return
    assert document["best"]["config"] == {}
    said = "The baseline stays: fast=true, itl_ms=10 died after the confirmation (died)."
    assert document["outcome"]["said"] == said


@pytest.mark.parametrize(("front", "refused"), [("native", False), ("triton", True)])
def test_a_server_without_openais_protocol_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, front: str, refused: bool
) -> None:
    lab = StudyLab(tmp_path / "s", monkeypatch)
    monkeypatch.setattr(lm_eval, "require", lambda *_: None)
    monkeypatch.setattr(likelihoods, "require", lambda *_: None)
    study = lab.study(lm_eval="capitals", front=front)
    if not refused:
        lab.run(fast, study)
        return
    error = lab.fails(fast, study)
    assert str(error) == (
        "--lm-eval capitals: needs OpenAI's protocol, which faulty.engine behind triton does not"
        " speak; leave it out, or take another front (--front)."
    )
    assert not lab.folder.exists()


def test_the_embedded_engine_speaks_it_before_every_front() -> None:
    for front in ("native", "triton", "bentoml"):
        load_stack("openvino", front, "tiny").require_openai({}, "--lm-eval t")
    with pytest.raises(UsageError, match="which vllm behind triton does not speak"):
        load_stack("vllm", "triton", "m").require_openai({}, "--lm-eval t")


@pytest.mark.skipif(
    lm_eval_installed.program() is None, reason="lm-eval is missing: pip install lm_eval[api]"
)
def test_lm_eval_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("HUB", "DATASETS", "EVALUATE"):
        monkeypatch.setenv(f"HF_{library}_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    data, task = tmp_path / "capitals.jsonl", tmp_path / "capitals.yaml"
    rows = [{"q": f"The capital of {n} is", "a": f" city {n}"} for n in range(QUESTIONS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task.write_text(TASK.format(data=data))
    lab = Lab(tmp_path / "study", "--seed=1", tasks=(str(task),))

    assert lab.exam.compare({"better": True}) is None

    (row,) = lab.document()["tasks"]
    assert (row["task"], row["metric"], row["questions"]) == ("capitals", "exact_match", QUESTIONS)
    assert (row["baseline"], row["winner"], row["verdict"]) == (0.5, 1.0, "better")


@pytest.mark.skipif(
    lm_eval_installed.program() is None or find_spec("transformers") is None,
    reason="lm-eval or transformers is missing: pip install lm_eval[api] transformers",
)
def test_lm_eval_itself_with_answers_to_choose_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("HUB", "DATASETS", "EVALUATE"):
        monkeypatch.setenv(f"HF_{library}_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    task, model = _choices(tmp_path), _words(tmp_path / "model")
    lab = Lab(tmp_path / "study", "--seed=1", tasks=(task,), model=model, always=("scores",))

    assert lab.exam.compare({"better": True}) is None

    rows = lab.document()["tasks"]
    (row,) = [row for row in rows if row["metric"] == "acc"]
    assert (row["task"], row["questions"], row["baseline"]) == ("choices", QUESTIONS, 0.5)
    assert (row["winner"], row["verdict"]) == (1.0, "better")


@pytest.mark.skipif(
    lm_eval_installed.program() is None, reason="lm-eval is missing: pip install lm_eval[api]"
)
def test_lm_eval_itself_with_a_group_at_which_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("HUB", "DATASETS", "EVALUATE"):
        monkeypatch.setenv(f"HF_{library}_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    data, task, more = tmp_path / "capitals.jsonl", tmp_path / "capitals.yaml", tmp_path / "more"
    rows = [{"q": f"The capital of {n} is", "a": f" city {n}"} for n in range(QUESTIONS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task.write_text(TASK.format(data=data))
    more.mkdir()
    _choices(more)
    (more / "all.yaml").write_text("group: our_group\ntask: [choices]\n")
    lab = Lab(tmp_path / "study", f"--include_path={more}", tasks=(str(task), "our_group"))

    assert lab.exam.compare({"better": True}) is None

    (row,) = lab.document()["tasks"]
    assert (row["task"], row["baseline"], row["winner"]) == ("capitals", 0.5, 1.0)
    (dropped,) = lab.document()["dropped"]
    assert dropped["task"] == "our_group"
    assert "lm-eval" in dropped["why"]


@pytest.mark.skipif(
    lm_eval_installed.program() is None, reason="lm-eval is missing: pip install lm_eval[api]"
)
def test_lm_eval_itself_over_a_server_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("HUB", "DATASETS", "EVALUATE"):
        monkeypatch.setenv(f"HF_{library}_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(lm_eval, "_TIMEOUT_S", 3)
    data, task = tmp_path / "capitals.jsonl", tmp_path / "capitals.yaml"
    data.write_text(json.dumps({"q": "The capital of 1 is", "a": " city 1"}) + "\n")
    task.write_text(TASK.format(data=data))

    fault = Lab(tmp_path / "study", tasks=(str(task),), always=("hangs",)).exam.compare({})

    assert fault is None  # it was the baseline that hung
    lab = Lab(tmp_path / "study", tasks=(str(task),))
    assert lab.document()["why"].startswith("while lm-eval asked it: the server lives but made no")
