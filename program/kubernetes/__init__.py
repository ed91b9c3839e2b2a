"""The Kubernetes API server, asked for JSON by the asyncio client of the official package.

`connection` is where programs begin, and alone loads the package. `configuration` says which cluster is asked and as
whom, `transport` opens the connections, `client` gets, lists, watches and patches, and `errors` says why there is no
usable response.

Of the package only its configuration and `call_api` are used. Its models cost a hundred times as much as orjson and
drop fields that they do not know; its `Watch` reconnects for ever and asks for no bookmarks.
"""

import os
from pathlib import Path

try:
    Path.home()
except RuntimeError:
    # The package asks for it when it is imported. The user of a container need not be in its /etc/passwd; container
    # runtimes say the same for such a user.
    os.environ["HOME"] = "/"
