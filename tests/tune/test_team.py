"""Leases of jobs in a real PostgreSQL: one holder at a time, and what is dropped comes back."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import postgresql
from llmdyno import __version__
from llmdyno.errors import StorageError, UsageError
from llmdyno.spec import Load
from llmdyno.tune.database import VERSION, Database, without_password
from llmdyno.tune.jobs import Posted
from llmdyno.tune.team import Team
from llmdyno.tune.worker import studies_at_work, work

LEASE_S = 60.0  # longer than any test takes: leases run out when let_pass() says so


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.started() as found:
        yield found


@pytest.fixture
def database(server: postgresql.Server) -> Iterator[Database]:
    found = Database(server.url, patience_s=60.0)
    yield found
    found.close()


@pytest.fixture
def team(database: Database, request: pytest.FixtureRequest) -> Iterator[Team]:
    found = Team(database, request.node.name)
    found.open("a study", LEASE_S)
    found.set_state("trials")
    found.admit(range(1, 10))
    yield found
    database.ask("DELETE FROM dyno_studies")


def posted(number: int) -> Posted:
    return Posted(phase="trial", number=number, config={"a": number}, load=Load(), races=False)


def joined(team: Team, name: str = "gpu-a", sitting: str = "s1") -> int:
    number = team.join(name=name, boot="b", gpus=0, sitting=sitting)
    assert number is not None, "the name is taken"
    return number


def let_pass(database: Database, leases: float) -> None:
    """Let so many leases pass: every moment in the database is so much longer ago."""
    for moved in (
        "UPDATE dyno_studies SET seen = seen - make_interval(secs => :seconds)",
        "UPDATE dyno_hosts SET seen = seen - make_interval(secs => :seconds)",
        "UPDATE dyno_jobs SET until = until - make_interval(secs => :seconds)",
    ):
        database.ask(moved, seconds=leases * LEASE_S)


def test_many_workers_that_ask_at_once_get_a_job_each(team: Team, server: Any) -> None:
    for number in range(12):
        team.post(posted(number), host=None, tries_max=2)
    got: list[int] = []

    def work(name: str) -> None:
        own = Database(server.url)
        mine = Team(own, team.study)
        host = joined(mine, name, name)
        while (leased := mine.lease(host, name)) is not None:
            got.append(leased.posted.number)
            assert mine.deliver(leased.id, name, run=f"r{leased.id}", came="{}", files={})
        own.close()

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert sorted(got) == list(range(12))


def test_a_lease_that_runs_out_is_anothers_and_the_first_may_not_deliver(
    team: Team, database: Database
) -> None:
    job = team.post(posted(0), host=None, tries_max=2)
    first, second = joined(team, "a", "s1"), joined(team, "b", "s2")

    held = team.lease(first, "s1")
    assert held is not None
    assert held.posted == posted(0)
    assert team.lease(second, "s2") is None
    let_pass(database, 0.5)
    assert team.renew(job, "s1")
    let_pass(database, 0.7)
    assert team.lease(second, "s2") is None  # it was renewed
    let_pass(database, 0.7)
    again = team.lease(second, "s2")

    assert again is not None
    assert again.id == job
    assert not team.renew(job, "s1")
    assert not team.deliver(job, "s1", run="old", came="{}", files={"journal.jsonl": b"old"})
    assert team.deliver(job, "s2", run="new", came="{}", files={"journal.jsonl": b"new"})
    assert team.deliver(job, "s2", run="new", came="{}", files={})  # the commit's answer was lost
    assert team.look([job])[job]["run"] == "new"


def test_a_job_whose_workers_die_twice_is_lost(team: Team, database: Database) -> None:
    job = team.post(posted(0), host=None, tries_max=2)
    for sitting in ("s1", "s2"):
        host = joined(team, sitting, sitting)
        assert team.lease(host, sitting) is not None
        let_pass(database, 1.1)
    host = joined(team, "s3", "s3")

    assert team.lease(host, "s3") is None
    assert team.look([job])[job]["state"] == "lost"


def test_a_job_for_a_host_that_is_gone_is_lost(team: Team, database: Database) -> None:
    host = joined(team)
    job = team.post(posted(0), host=host, tries_max=1)
    other = joined(team, "b", "s2")

    assert team.lease(other, "s2") is None
    assert team.look([job])[job]["state"] == "open"
    let_pass(database, 1.1)
    assert team.look([job])[job]["state"] == "open"  # one that comes back may have its place now
    let_pass(database, 1.0)
    assert team.look([job])[job]["state"] == "lost"


def test_a_host_that_was_refused_gets_no_job_even_if_it_asks(team: Team) -> None:
    job = team.post(posted(0), host=None, tries_max=2)
    host, other = joined(team), joined(team, "b", "s2")
    team.refuse(host, "it is broken")

    assert team.lease(host, "s1") is None
    leased = team.lease(other, "s2")
    assert leased is not None
    assert leased.id == job


def test_a_worker_that_comes_back_finds_the_job_for_its_host(
    team: Team, database: Database
) -> None:
    host = joined(team)
    job = team.post(posted(0), host=host, tries_max=1)
    let_pass(database, 1.1)
    assert team.look([job])[job]["state"] == "open"

    assert joined(team, sitting="s2") == host
    leased = team.lease(host, "s2")
    assert leased is not None
    assert leased.id == job


def test_what_was_posted_before_the_lead_died_is_not_posted_twice(team: Team) -> None:
    job = team.post(posted(0), host=None, tries_max=2)
    host = joined(team)
    assert team.lease(host, "s1") is not None
    files = {"summary.json": b"{}", "warmup/journal.jsonl": b"lines" * 1000}
    assert team.deliver(job, "s1", run="runs/x", came="came", files=files)

    assert team.post(posted(0), host=None, tries_max=2) == job
    row = team.look([job])[job]
    assert (row["state"], row["came"]) == ("done", "came")
    assert team.files("runs/x") == files
    team.take_recorded({"runs/y"})
    assert team.look([job])[job]["state"] == "done"  # its step is not in the ledger
    team.take_recorded({"runs/x", "runs/y"})  # it is: the lead was killed before it said so
    assert list(team.files("runs/x")) == ["summary.json"]
    assert team.post(posted(0), host=None, tries_max=2) != job  # a new one: that one was taken


def test_a_study_that_was_removed_is_one_sentence_and_says_how_it_goes_on(
    team: Team, database: Database
) -> None:
    job = team.post(posted(0), host=None, tries_max=2)
    database.advise(" Go on so.")
    database.ask("DELETE FROM dyno_studies WHERE study = :s", s=team.study)
    for ask in (
        lambda: team.look([job]),
        lambda: team.push(0, ["a line"]),
        lambda: team.post(posted(1), host=None, tries_max=2),
        team.terms,
    ):
        with pytest.raises(StorageError) as at:
            ask()
        said = f"{database.shown}: the study was removed from the database. Go on so."
        assert str(at.value) == said


def test_a_sign_of_life_that_fails_takes_nobodys_patience(
    team: Team, server: postgresql.Server
) -> None:
    told: list[str] = []
    database = Database(server.url, notify=told.append, patience_s=60.0)
    team = Team(database, team.study)
    team.beat_lead()
    server.stop()
    starting = threading.Timer(1.0, server.start)
    try:
        with pytest.raises(StorageError, match="cannot be reached"):
            team.beat_lead()
        assert told == []  # it was not waited for
        starting.start()

        team.post(posted(7), host=None, tries_max=2)  # and this is
    finally:
        if starting.ident is None:
            server.start()
        else:
            starting.join()
        database.close()
    assert len(told) == 1


def test_tables_of_the_first_version_get_what_they_lack(server: postgresql.Server) -> None:
    own = Database(server.url)
    own.make_tables()
    own.ask("DELETE FROM dyno_studies")
    own.ask("ALTER TABLE dyno_studies DROP COLUMN llmdyno, DROP COLUMN whole")
    own.ask(
        "INSERT INTO dyno_studies (study, name, version, state, lease_s)"
        " VALUES ('old', 'old', 1, 'stopped', 1)"
    )
    own.make_tables()
    assert Team(own, "old").terms()["llmdyno"] == ""
    Team(own, "old").open("old", LEASE_S)
    assert Team(own, "old").terms()["llmdyno"] == __version__
    assert own.ask("SELECT version FROM dyno_studies") == [{"version": VERSION}]
    own.ask("DELETE FROM dyno_studies")
    own.close()


def test_who_may_make_no_tables_can_use_them(server: postgresql.Server) -> None:
    own = Database(server.url)
    own.make_tables()
    own.ask("DROP ROLE IF EXISTS other")
    own.ask("CREATE ROLE other LOGIN")
    own.ask("GRANT ALL ON ALL TABLES IN SCHEMA public TO other")
    own.ask("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    others = Database(server.url.replace("me@", "other@"))
    others.make_tables()
    assert studies_at_work(others) is not None
    others.close()
    own.close()


def test_a_host_has_its_number_again_and_its_name_alone(team: Team, database: Database) -> None:
    first = joined(team, "a", "s1")
    second = joined(team, "b", "s2")
    assert (first, second) == (1, 2)
    assert team.join(name="a", boot="b", gpus=0, sitting="s3") is None
    let_pass(database, 1.1)
    assert team.hosts() == []
    assert joined(team, "a", "s3") == 1
    assert [row["name"] for row in team.hosts()] == ["a"]
    with pytest.raises(StorageError, match="place was given to another"):
        team.beat(1, "s1")
    team.refuse(1, "it is slow")
    assert team.hosts() == []
    assert team.beat(1, "s3")["refused"] == "it is slow"


def test_a_trial_is_for_hosts_that_have_a_place_and_a_check_for_whom_it_names(team: Team) -> None:
    first, second = joined(team, "a", "s1"), joined(team, "b", "s2")
    team.admit([second])
    trial = team.post(posted(0), host=None, tries_max=2)
    check = team.post(posted(1), host=first, tries_max=1)

    leased = team.lease(first, "s1")
    assert leased is not None
    assert leased.id == check  # not the trial, which was there before
    assert team.lease(first, "s1") is None
    other = team.lease(second, "s2")
    assert other is not None
    assert other.id == trial


def test_a_combination_has_its_turn_and_a_host_may_lack_it(team: Team, database: Database) -> None:
    parts = [Team(database, f"{team.study}-{name}", team.study) for name in "ab"]
    for part in parts:
        part.open("a part", LEASE_S)
        part.admit([1, 2])
        part.post(posted(0), host=None, tries_max=2)
    lacks = {parts[1].study: "it has no b."}
    whole = team.join(name="a", boot="x", gpus=0, sitting="s1")
    lacking = team.join(name="b", boot="y", gpus=0, sitting="s2", lacks=lacks)
    assert (whole, lacking) == (1, 2)
    assert [row["study"] for row in team.parts()] == [part.study for part in parts]
    assert [row["study"] for row in studies_at_work(database)] == [team.study]
    assert [[row["lacks"] for row in part.hosts()] for part in parts] == [
        [None, None],
        [None, "it has no b."],
    ]
    assert team.lease(1, "s1") is None  # it is nobody's turn

    parts[1].set_state("trials")

    assert team.lease(2, "s2") is None
    leased = team.lease(1, "s1")
    assert leased is not None
    assert leased.study == parts[1].study
    parts[1].set_state("waits")
    assert parts[1].renew(leased.id, "s1")  # what it has goes on
    assert parts[1].deliver(leased.id, "s1", run="r", came="{}", files={})
    parts[1].lack(1, parts[1].study, "it was replaced.")
    assert [row["lacks"] for row in parts[1].hosts()] == ["it was replaced.", "it has no b."]
    team.join(name="a", boot="x", gpus=0, sitting="s1")  # it is mended, and comes again
    assert [row["lacks"] for row in parts[1].hosts()] == [None, "it has no b."]
    for_lacking = parts[1].post(posted(1), host=2, tries_max=1)
    assert parts[1].look([for_lacking])[for_lacking]["state"] == "lost"
    team.close("over")
    assert [row["state"] for row in database.ask("SELECT state FROM dyno_studies")] == ["over"] * 3
    database.ask("DELETE FROM dyno_studies WHERE study = :s", s=team.study)
    assert database.ask("SELECT study FROM dyno_studies") == []  # its combinations go with it


def test_lines_of_the_ledger_are_written_once(team: Team) -> None:
    team.push(0, ["a", "b"])
    team.push(1, ["b", "c"])
    assert team.lines(0) == ["a", "b", "c"]
    assert team.lines(2) == ["c"]


def test_a_study_is_found_while_its_trials_run(team: Team, database: Database) -> None:
    assert team.study in [row["study"] for row in studies_at_work(database)]
    job = team.post(posted(0), host=None, tries_max=2)
    host = joined(team)
    assert team.lease(host, "s1") is not None
    team.close("over")
    assert not team.renew(job, "s1")  # it was taken back
    assert team.beat(host, "s1")["state"] == "over"
    assert team.study not in [row["study"] for row in studies_at_work(database)]


def test_a_database_that_is_started_again_is_waited_for(
    team: Team, server: postgresql.Server
) -> None:
    server.stop()
    starting = threading.Timer(1.0, server.start)
    starting.start()

    team.post(posted(7), host=None, tries_max=2)

    starting.join()


def test_a_database_that_stays_away_is_one_sentence(
    server: postgresql.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "a-secret")
    told: list[str] = []
    own = Database(server.url, patience_s=1.0, notify=told.append)
    own.ask("SELECT 1 AS one")
    server.stop()
    try:
        with pytest.raises(StorageError, match=": cannot be reached: ") as at:
            own.ask("SELECT 1 AS one")
    finally:
        server.start()
    assert told == [f"! {own.shown} does not answer; it is asked again."]
    assert str(at.value).startswith(f"{own.shown}: ")
    assert "a-secret" not in str(at.value)
    assert "\n" not in str(at.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///x.db", "is no URL of a PostgreSQL; write postgresql"),
        ("nonsense", "is no URL of a PostgreSQL"),
        ("postgresql+psycopg://me@host", "is no URL of a PostgreSQL"),
        ("postgresql+psycopg://me:secret@host/team", "has a password"),
        ("postgresql+psycopg://me@host/team?password=secret", "has a password"),
        ("postgresql+psycopg://me@host/team?sslpassword=secret", "has sslpassword in its query"),
        ("postgresql+psycopg://me@/team?oauth_client_secret=secret", "has oauth_client_secret in"),
    ],
)
def test_a_url_that_cannot_be_is_refused_and_no_password_shown(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as at:
        Database(url)
    assert "=secret" not in str(at.value)
    assert ":secret" not in str(at.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql+psycopg://me@host/team?sslmode=require&sslpassword=secret&passfile=p",
            "postgresql+psycopg://me@host/team?passfile=p&sslmode=require",
        ),
        ("mysql://me:secret@host/team?passwd=secret&a=b", "mysql://me:***@host/team"),
        ("postgresql://me:a@secret@host/team", "postgresql://..."),
    ],
)
def test_a_url_is_shown_with_its_query_and_without_secrets(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_of_several_studies_a_worker_wants_to_know_which(
    team: Team, database: Database, tmp_path: Path
) -> None:
    other = Team(database, f"{team.study}-2")
    other.open("a study", LEASE_S)
    other.set_state("trials")
    for asked in ("", "a study"):
        with pytest.raises(UsageError, match="--study: several are at work, a study") as at:
            work(database, tmp_path, study=asked, name="w", say=lambda _: None)
        assert team.study in str(at.value)
    with pytest.raises(StorageError, match="the study has no ledger in the database"):
        work(database, tmp_path, study=other.study, name="w", say=lambda _: None)


def test_a_study_of_another_version_is_refused(
    team: Team, database: Database, tmp_path: Path
) -> None:
    database.ask("UPDATE dyno_studies SET version = 99 WHERE study = :s", s=team.study)
    with pytest.raises(UsageError, match="has rows of version 99; this llmdyno has version 3"):
        work(database, tmp_path, study=team.study, name="w", say=lambda _: None)
