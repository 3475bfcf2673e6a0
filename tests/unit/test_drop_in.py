"""Settings of the drop-in for TRL's `KTOTrainer`."""

import pytest

from depo.config.base import ConfigError
from depo.config.method import MethodConfig
from depo.training import DEPOConfig


@pytest.mark.parametrize("given", [{}, {"alpha_tokens": 0.0}, {"alpha_steps": 1.0}])
def test_an_alpha_that_is_not_set_is_the_published_one_through_both_doors(given):
    published = {"alpha_tokens": 3.0, "alpha_steps": 3.0}
    for made in (MethodConfig(objective="depo", **given), DEPOConfig("out", use_cpu=True, **given).method()):
        assert {name: getattr(made, name) for name in published} == published | given
    assert MethodConfig(objective="kto").alpha_tokens == MethodConfig(objective="dpo").alpha_steps == 0


def test_a_drop_in_without_alphas_is_kto_and_says_so_of_settings_it_then_lacks():
    nothing = {"alpha_tokens": 0, "alpha_steps": 0, "use_cpu": True}
    assert DEPOConfig("out", **nothing).method() == MethodConfig(objective="kto", seed=42)
    for more, said in (({"objective": "depo"}, "has no bonus"), ({"placement": "margin"}, "not read by")):
        with pytest.raises(ConfigError, match=said):
            DEPOConfig("out", **nothing, **more).method()
