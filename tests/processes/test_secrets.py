import pytest

from llmdyno.processes.secrets import is_secret, redact


@pytest.mark.parametrize("name", ["HF_TOKEN", "my_api_key", "DB_PASSWORD", "AUTHORIZATION"])
def test_a_secret_is_told_by_its_name(name: str) -> None:
    assert is_secret(name)


def test_other_names_are_no_secrets() -> None:
    assert not is_secret("CUDA_VISIBLE_DEVICES")


def test_values_that_may_be_secret_are_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "of-ours")
    given = {"PLAIN": "given-text", "SHORT": "1", "HOME_OF_IT": "/a/path/that/is/none"}

    lines = redact(["of-ours given-text 1 /a/path/that/is/none"], given)

    assert lines == ["••• ••• 1 /a/path/that/is/none"]


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert redact(["abcdef-ghi"], {"A": "abcdef", "B": "abcdef-ghi"}) == ["•••"]
