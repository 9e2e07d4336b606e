"""papermill in a kernel that tests share."""

from typing import Any

import papermill
import pytest
from jupyter_client.manager import KernelManager

PAPERMILL = papermill.execute_notebook


def execute_in(manager: KernelManager, *given: Any, **options: Any) -> Any:
    """papermill's `execute_notebook` in a running kernel, and nothing left open after it.

    papermill closes its connections only where it ends the kernel. What it leaves open, Python
    closes in any later test, whose warnings then speak of it.
    """
    clients: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        make = manager.client
        patch.setattr(manager, "client", lambda: clients.append(make()) or clients[-1])
        try:
            return PAPERMILL(*given, km=manager, **options)
        finally:
            for client in clients:
                client.stop_channels()
