"""What every workload must do, whatever it asks.

A workload proves itself with the fields of a spec that it accepts:

    from llmdyno.testing.workloads import WorkloadContract
    from my_package.my_workload import WORKLOAD

    class TestMine(WorkloadContract):
        workload = WORKLOAD
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
import pytest

from llmdyno import workload as workloads
from llmdyno.errors import UsageError
from llmdyno.spec import Load
from llmdyno.units import Lengths
from llmdyno.workload import Item, Session, Workload, WorkloadSpec
from llmdyno.workload.prompts import Prompts
from llmdyno.workload.share import Share

DRAWS = 24
_WITH_TIMES = Load(arrival="trace")
_FIELDS: Mapping[str, Any] = {
    "isl": Lengths("fixed", 5),
    "dataset": "nowhere.jsonl",
    "dataset_osl": True,
    "unique": True,
    "prefix_share": 0.5,
}


class WorkloadContract:
    """The tests of one workload; a subclass names it, and what its spec must hold."""

    workload: ClassVar[Workload]
    fields: ClassVar[Mapping[str, Any]] = {}  # of a WorkloadSpec, but for its name

    def spec(self, **more: Any) -> WorkloadSpec:
        """Return a spec that the workload accepts, with these fields besides."""
        return WorkloadSpec(**{"name": self.workload.name, **self.fields, **more})

    def drawn(self, spec: WorkloadSpec, stream: str = "", share: Share | None = None) -> list[Any]:
        """Return the first sessions of a level, as many as there are if they end."""
        prompts = Prompts(spec, stream, share=share)
        count = DRAWS
        if workloads.has_times(self.workload):
            count = (share or Share()).count(min(DRAWS, len(prompts.due_s)))
        return [prompts.draw_session() for _ in range(count)]

    def items(self, spec: WorkloadSpec, stream: str = "") -> list[Item]:
        """Return the requests of those sessions."""
        return [item for session in self.drawn(spec, stream) for item in session]

    @property
    def _load(self) -> Load:
        return _WITH_TIMES if workloads.has_times(self.workload) else Load()

    # The spec.

    def test_its_name_is_the_one_that_loads_it(self) -> None:
        """`--workload NAME` must find it: a name of ours, or the module with its dots."""
        assert workloads.load(self.workload.name) is self.workload

    def test_a_spec_that_it_accepts_is_accepted(self) -> None:
        """The spec of the contract's `fields` must pass the check."""
        workloads.check(self.spec(), self._load)

    @pytest.mark.parametrize("field", _FIELDS)
    def test_a_field_of_no_use_is_refused_by_its_name(self, field: str) -> None:
        """A field that is not in `takes` must be refused, and its flag be named."""
        if field in workloads.takes(self.workload):
            pytest.skip("it takes the field")

        with pytest.raises(UsageError, match=f"^--{field.replace('_', '-')}"):
            workloads.check(self.spec(**{field: _FIELDS[field]}), self._load)

    def test_a_data_set_that_is_not_there_is_refused(self) -> None:
        """The check must read the data set, so that nothing starts without it."""
        if "dataset" not in workloads.takes(self.workload):
            pytest.skip("it has no data set")

        with pytest.raises(UsageError, match=r"--dataset nowhere.jsonl: cannot be read"):
            workloads.check(self.spec(dataset="nowhere.jsonl"), self._load)

    def test_it_goes_only_with_arrivals_that_it_can_have(self) -> None:
        """Only a workload with due times takes `--arrival trace`; turns need users."""
        own_times = workloads.has_times(self.workload)
        with pytest.raises(UsageError, match=r"^--arrival .* does not go with --workload"):
            workloads.check(self.spec(), Load() if own_times else _WITH_TIMES)

        if workloads.in_turns(self.workload):
            with pytest.raises(UsageError, match="needs users"):
                workloads.check(self.spec(), Load(arrival="poisson", rates=(1.0,)))

    # The prompts.

    def test_the_same_seed_and_level_ask_the_same(self) -> None:
        """Every random choice must be made with `Draws.rng`."""
        assert self.drawn(self.spec(seed=3), "50") == self.drawn(self.spec(seed=3), "50")

    def test_every_request_asks_something(self) -> None:
        """No prompt may be blank, and no answer may be limited to 0 tokens."""
        items = self.items(self.spec())

        assert items
        for item in items:
            assert item.prompt.strip()
            assert item.max_tokens is None or item.max_tokens >= 1

    def test_workers_together_ask_what_one_process_asks(self) -> None:
        """The number of workers must not change which sessions are drawn."""
        alone = self.drawn(self.spec(), "5")
        dealt = [self.drawn(self.spec(), "5", Share(index=index, of=3)) for index in range(3)]

        together: list[Session] = [dealt[n % 3][n // 3] for n in range(len(alone))]

        assert together == alone

    def test_only_a_workload_in_turns_has_sessions(self) -> None:
        """Sessions must be numbered in order; without `in_turns` each is one request."""
        sessions = self.drawn(self.spec())

        if workloads.in_turns(self.workload):
            for number, session in enumerate(sessions):
                places = [(item.session, item.turn) for item in session]
                assert places == [(number, turn) for turn in range(len(session))]
        else:
            assert {len(session) for session in sessions} == {1}
            assert {session[0].session for session in sessions} == {-1}

    def test_answers_are_as_long_as_the_user_wants(self) -> None:
        """`--osl` must set the length of every answer, or be refused by its name."""
        spec = self.spec(osl=Lengths("fixed", 5))
        try:
            workloads.check(spec, self._load)
        except UsageError as error:
            assert str(error).startswith("--osl")  # noqa: PT017  # or it must go through
            return

        assert {(item.max_tokens, item.exact_length) for item in self.items(spec)} == {(5, True)}

    def test_unique_prompts_are_all_unlike(self) -> None:
        """Under `--unique` no two prompts may begin alike."""
        if "unique" not in workloads.takes(self.workload):
            pytest.skip("--unique is refused")

        first = [session[0] for session in self.drawn(self.spec(unique=True))]

        assert len({item.prompt.split(": ")[0] for item in first}) == len(first)
        assert [item.number for item in first] == list(range(len(first)))

    # What the summary believes of them.

    def test_prompts_that_never_repeat_are_all_new(self) -> None:
        """Where `repeats` is False, no prompt may come twice in all levels."""
        if getattr(self.workload, "repeats", None) is not False:
            pytest.skip("prompts may come again")
        levels = [self.items(self.spec(), stream) for stream in ("10", "50")]

        prompts = [item.prompt for items in levels for item in items]

        assert len(set(prompts)) == len(prompts)

    def test_equal_numbers_are_equal_prompts(self) -> None:
        """Where `repeats` is True, `Item.number` must identify the prompt in all levels."""
        if not getattr(self.workload, "repeats", False):
            pytest.skip("no prompt is known from the level before")
        items = [item for stream in ("10", "50") for item in self.items(self.spec(), stream)]
        alike = [msgspec.structs.astuple(item)[:3] for item in items]

        assert len(set(alike)) == len({item.number for item in items})

    def test_a_shared_prefix_is_a_system_prompt_of_all(self) -> None:
        """Where `shares_prefix` is True, all requests must have one system prompt."""
        if not getattr(self.workload, "shares_prefix", False):
            pytest.skip("prompts begin as they like")

        prefixes = {item.system_prompt for item in self.items(self.spec())}

        assert len(prefixes) == 1
        assert all(prefixes)

    def test_due_times_begin_at_nought_and_go_up(self) -> None:
        """`due_s` must begin at 0 s and be in ascending order."""
        if not workloads.has_times(self.workload):
            pytest.skip("the load says when")

        due_s = Prompts(self.spec()).due_s

        assert due_s[0] == 0
        assert due_s == sorted(due_s)
