"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# No machine is too slow for a property: pytest's own time limit ends what hangs.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
