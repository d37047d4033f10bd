"""Before huggingface_hub is imported: no test may reach the real Hub or the user's cache."""

import os
import tempfile

from tests.hub_server import HubServer

HUB = HubServer()
os.environ["HF_ENDPOINT"] = HUB.address
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="voice2face-tests-")
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.pop("HF_HUB_OFFLINE", None)
os.environ.pop("HF_TOKEN", None)
