import pytest

from depo.config.base import ConfigError
from depo.envs.babyai.env import BabyAIEnv
from depo.envs.babyai.levels import AGENTGYM_LEVELS, level_name
from depo.envs.base import TextEnv
from depo.envs.registry import make_env


def test_an_environment_is_made_by_id_or_by_import_path():
    env = make_env("babyai", {"levels": ["GoToRedBall"], "instructions": "brief"})
    assert isinstance(env, BabyAIEnv) and isinstance(env, TextEnv)
    assert isinstance(make_env("depo.envs.babyai.env:BabyAIEnv", {}), BabyAIEnv)


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("babyay", {}, "env.id: unknown environment 'babyay'; did you mean 'babyai'?"),
        ("nowhere.at_all:Env", {}, "env.id: 'nowhere.at_all:Env' cannot be imported"),
        ("babyai", {"level": ["GoToRedBall"]}, "unknown option of 'babyai'; did you mean 'levels'?"),
        ("babyai", {"levels": ["GoToRedBal"]}, "level 'GoToRedBal'; did you mean 'GoToRedBall"),
        ("babyai", {"levels": ["GoToObjS6-v0"]}, "did you mean 'GoToObjS6-v1'?"),
        ("babyai", {"levels": [41]}, "env.options.levels: 41 is no level number; use 1 to 40"),
        ("babyai", {"levels": "GoToRedBall"}, "env.options.levels: give a list"),
        ("babyai", {"levels": []}, "env.options.levels: give a list"),
        ("babyai", {"levels": 7}, "env.options.levels: give a list"),
        ("babyai", {"levels": [1.5]}, "neither a level's name nor its number"),
        ("babyai", {"instructions": "long"}, "env.options.instructions: give 'full' or 'brief'"),
        ("babyai", {"show_actions": "no"}, "env.options.show_actions: give true or false"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_with_the_mend(id, options, message):
    with pytest.raises(ConfigError) as error:
        make_env(id, options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_level_has_one_name_whatever_it_is_called():
    assert {level_name(n) for n in ("GoToRedBall", "GoToRedBall-v0", "BabyAI-GoToRedBall-v0", 2)} == {
        "GoToRedBall"
    }
    assert {level_name(n) for n in ("GoToObjS6", "BabyAI-GoToObjS6-v1", 4)} == {"GoToObjS6-v1"}
    assert [level_name(name) for name in AGENTGYM_LEVELS] == [level_name(i) for i in range(1, 41)]


class Needy:
    """Cannot be made without being told its size."""

    def __init__(self, size: int) -> None:
        self.size = size


def test_a_missing_option_is_named():
    with pytest.raises(ConfigError, match=r"env\.options\.size: missing; 'test_registry:Needy' needs it"):
        make_env("test_registry:Needy", {})
    assert make_env("test_registry:Needy", {"size": 3}).size == 3
