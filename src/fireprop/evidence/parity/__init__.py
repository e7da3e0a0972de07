"""Golden parity: spikes and gradients that other programs found, frozen, and compared with fireprop's."""

from fireprop.evidence.parity.check import ParityRow, check_all, check_fixture
from fireprop.evidence.parity.fixtures import Fixture, fixture_names, load_fixture

__all__ = ["Fixture", "ParityRow", "check_all", "check_fixture", "fixture_names", "load_fixture"]
