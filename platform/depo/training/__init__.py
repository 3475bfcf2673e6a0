"""BC and preference training on TRL and PEFT: one body for Ray Train workers and Ray Tune trials.

`from depo.training import DEPOConfig, DEPOTrainer` serves users of TRL, without Ray.
"""


def __getattr__(name: str) -> object:
    # Read on demand, so that the package itself stays light.
    if name in ("DEPOConfig", "DEPOTrainer"):
        from depo.training import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
