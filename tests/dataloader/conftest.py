import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """The same noise in every run of the tests."""
    torch.manual_seed(0)
