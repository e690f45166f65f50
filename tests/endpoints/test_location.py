"""What a URL says: a base path is kept, a whole one names the endpoint and its model."""

import pytest

from llmdyno.endpoints import locate
from llmdyno.errors import UsageError
from llmdyno.wire.target import Target, parse_url

CHAT, MODELS = "/v1/chat/completions", "/v1/models"


def placed(url: str, endpoint: str = "auto") -> tuple[str, str, Target]:
    place = locate(url, endpoint)
    return (
        place.endpoint,
        place.model,
        parse_url(place.url, version=place.version, query=place.query),
    )


@pytest.mark.parametrize(
    ("path", "endpoint", "chat", "models"),
    [
        ("", "", CHAT, MODELS),
        ("/", "", CHAT, MODELS),
        ("/api", "", f"/api{CHAT}", f"/api{MODELS}"),  # a prefix stays
        ("/v1", "", CHAT, MODELS),
        ("/openai/v1/", "", f"/openai{CHAT}", f"/openai{MODELS}"),
        ("/api/v3", "", f"/api/v3{CHAT}", f"/api/v3{MODELS}"),
        (MODELS, "", CHAT, MODELS),
        (CHAT, "openai-chat", CHAT, MODELS),
        (f"/x{CHAT}/", "openai-chat", f"/x{CHAT}", f"/x{MODELS}"),
        ("/v1/completions", "openai-completions", CHAT, MODELS),
        # Servers whose paths have another version than OpenAI's, or none.
        ("/api/v3/chat/completions", "openai-chat", "/api/v3/chat/completions", "/api/v3/models"),
        (
            "/openai/deployments/x/chat/completions?api-version=2024-10-21",
            "openai-chat",
            "/openai/deployments/x/chat/completions?api-version=2024-10-21",
            "/openai/deployments/x/models?api-version=2024-10-21",
        ),
        ("/generate_stream", "tgi", CHAT, MODELS),
        ("/generate", "", CHAT, MODELS),  # TGI's, or a BentoML service's: ask
    ],
)
def test_a_path_is_kept_or_names_the_endpoint(
    path: str, endpoint: str, chat: str, models: str
) -> None:
    found, model, target = placed(f"http://h:8000{path}")

    assert (found, model) == (endpoint, "")
    assert (target.resource(CHAT), target.resource(MODELS)) == (chat, models)
    assert target.authority == "h:8000"


@pytest.mark.parametrize("end", ["generate_stream", "generate"])
def test_tritons_path_names_the_model(end: str) -> None:
    found, model, target = placed(f"http://h/x/v2/models/my%20llm/{end}")

    assert (found, model) == ("triton-generate", "my llm")
    assert target.resource("/v2") == "/x/v2"


def test_a_version_with_which_the_url_ends_is_not_repeated() -> None:
    triton, openai = placed("http://h/v2")[2], placed("http://h/v1")[2]

    assert triton.resource("/v2") == "/v2"
    assert triton.resource("/v2/models/x") == "/v2/models/x"
    assert openai.resource("/v10/x") == "/v1/v10/x"


def test_a_path_of_the_endpoint_that_was_named_is_taken_and_one_of_another_is_refused() -> None:
    assert placed(f"http://h{CHAT}", "openai-chat")[0] == "openai-chat"
    assert placed("http://h/generate", "openai-chat")[2].prefix == "/generate"
    with pytest.raises(UsageError, match=r"--endpoint openai-completions: .* that of openai-chat"):
        locate(f"http://h{CHAT}", "openai-completions")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h/v1?a=b", "must end with the path, without"),
        (f"http://h{CHAT}?api_key=abc", "must not hold a secret such as 'api_key'"),
        ("http://::1:80", r"write an IPv6 address in brackets, e.g. http://\[::1\]:8000"),
        ("http://[::1", "--url http://"),
    ],
)
def test_what_cannot_be_reached_is_one_sentence(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        placed(url)
