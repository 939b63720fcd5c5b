"""``python -m proxy_grm_client.cli``: the same as ``proxy-grm``."""

import sys

from proxy_grm_client.cli import main

sys.exit(main())
