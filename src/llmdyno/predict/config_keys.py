"""The keys of a model's config.json, those of its language part over those around it."""

from typing import Any

from llmdyno.errors import UsageError
from llmdyno.predict.families import defaults

# Where multimodal models keep what their language part is made of.
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "language_model")
_NAMED_PARTS = ("attn_config", "ffn_config")
_SIZE_MAX = 10**9  # larger is no size of a model


class Keys:
    """A config's keys, those of its language part over those around it."""

    def __init__(self, raw: dict[str, Any], where: str) -> None:
        self.where = where
        self.raw = raw
        while part := next((p for p in _TEXT_PARTS if isinstance(self.raw.get(p), dict)), None):
            inner = self.raw[part]
            around = {key: value for key, value in self.raw.items() if key != part}
            self.raw = {**defaults(str(inner.get("model_type", ""))), **around, **inner}
        for part in _NAMED_PARTS:  # DBRX, MPT: what is outside counts first
            inner = self.raw.get(part)
            self.raw = {**(inner if isinstance(inner, dict) else {}), **self.raw}

    def whole(self, *names: str) -> int:
        """Return the first of these keys that is there as a whole number; 0: none of them.

        Raises:
            UsageError: what is there is no whole number; names the key.
        """
        for name in names:
            value = self.raw.get(name)
            if value is None:
                continue
            if isinstance(value, list) and value and all(one == value[0] for one in value):
                value = value[0]  # one a layer
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _SIZE_MAX:
                raise UsageError(
                    f"--model {self.where}: {name} is {value!r}; it must be a whole number."
                )
            return value
        return 0

    def size(self, *names: str) -> int:
        """Return a size that must be there.

        Raises:
            UsageError: it is not, or is no whole number above 0; names the key.
        """
        value = self.whole(*names)
        if value < 1:
            raise UsageError(
                f"--model {self.where}: has no {names[0]} above 0, which a model's shape needs."
            )
        return value

    def rank(self, *names: str) -> int:
        """Return a rank, 0 where it is not said or is to follow from the other sizes ("auto")."""
        return self.whole(*(name for name in names if self.raw.get(name) != "auto"))

    def wrong(self, why: str) -> UsageError:
        """Return the error of a config that means something no sum is known of."""
        return UsageError(f"--model {self.where}: {why}.")
