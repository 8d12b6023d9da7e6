"""From a checkout the plugin of `pytest --benchmark` is loaded here; where the package is installed, by its entry point.

Not by `pytest_plugins`, which pytest refuses where the suite is collected from another folder.
"""

import pytest

PLUGIN = "bench.measure.throughput.plugin"
"""Also the entry point's name, so that pytest knows the two for one."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin(PLUGIN):
        pluginmanager.import_plugin(PLUGIN)
