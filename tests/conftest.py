"""What all tests share: no deadline for single examples, because machines that run tests are busy."""

from hypothesis import settings

settings.register_profile("rockledge", settings.default, deadline=None)
settings.load_profile("rockledge")
