"""The command start_multi_server.py start-chat | start-dev: hands its arguments on to laneway."""

import os
import shutil
import sys
from pathlib import Path

repository = Path(__file__).resolve().parent.parent
built = repository / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "laneway"
laneway = os.environ.get("LANEWAY") or (str(built) if built.exists() else shutil.which("laneway"))
if not laneway:
    sys.exit("laneway is not built yet: run scripts/start-chat once, it builds and starts it")
os.execvp(laneway, [laneway, "-f", str(repository / "instances.yaml"), *sys.argv[1:]])
