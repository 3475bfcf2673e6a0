"""A policy of one's own, named in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from depo.config.base import ConfigError
from depo.config.runtime import GenerationRuntime
from depo.config.schema import CustomConfig, RoundConfig, StudentConfig
from depo.policies.base import Immediate, Policy, Reply, Request, Sampling, answer_all, format_reply
from depo.policies.engine import make_policy


class Parrot(Immediate):
    name = "parrot"
    tokenizer_fingerprint = ""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def reply(self, request: Request) -> list[Reply]:
        return [Reply(format_reply("so", self.word), "so", self.word, False, 3)] * request.n


def make(cls: str, **options: object) -> Policy:
    config = RoundConfig.model_validate(
        {"name": "own", "policy": {"kind": "custom", "cls": cls, "options": options}}
    ).policy
    assert isinstance(config, CustomConfig)
    return make_policy(config, name="own", model_dir="", student=StudentConfig(), runtime=GenerationRuntime())


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_a_class_acts_with_its_options() -> None:
    policy = make(f"{__name__}:Parrot", word="turn left")
    ((one, two),) = answer_all(policy, [Request("", (), "look", 2, Sampling(), seed=0)])
    assert one.action == two.action == "turn left"
    assert policy.usage.tokens == 6


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        ("no_such_module:Parrot", {}, "policy.cls: 'no_such_module:Parrot' cannot be imported"),
        (f"{__name__}:Owl", {}, "cannot be imported"),
        (f"{__name__}:Parrot", {"wrod": "x"}, "policy.options: .*Parrot does not take them .*'wrod'"),
    ],
)
def test_what_cannot_be_made_is_one_clear_line(cls: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(cls, **options)
    assert "\n" not in str(caught.value)
