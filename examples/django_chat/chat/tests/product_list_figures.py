"""What the cache saves on the product list: time, queries and memory of a page, cached and not.

    .venv/bin/python -m chat.tests.product_list_figures [REDIS_URL]

Each row is a process of its own, in a lane of its own that is gone afterwards. Only looked at: no test judges speed.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dashboard_project import lane as lanes

PAGES = 300
# The six of seed_demo, as the page had when it was built; and enough that reading them costs something.
PRODUCTS = (6, 1000)


def resident_megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def load_pages():
    """In the lane of this process: one page to warm up, one whose queries are counted, then PAGES with a clock."""
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    settings.ALLOWED_HOSTS = ["testserver"]
    client = Client()
    client.force_login(User.objects.get())
    assert client.get("/").status_code == 200
    with CaptureQueriesContext(connection) as asked:
        client.get("/")
    queries = len(asked)  # what it holds is gone with the next request
    took = []
    for _ in range(PAGES):
        before = time.perf_counter()
        client.get("/")
        took.append(time.perf_counter() - before)
    print(f"{statistics.median(took) * 1000:.2f} {queries} {resident_megabytes():.1f}")


def fill(number):
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    from chat.models import Product

    call_command("migrate", verbosity=0)
    User.objects.create_user("ayse")
    Product.objects.bulk_create(Product(name=f"Ürün {n}", price=n, stock=n) for n in range(number))


def figures(redis_url):
    backends = ["dummy", "locmem", "file"] + (["redis"] if redis_url else [])
    print(f"{'products':>8}  {'cache':7}  {'ms':>6}  queries  {'MB':>6}")
    for number in PRODUCTS:
        with tempfile.TemporaryDirectory(prefix="product_list_") as root:
            # A prefix of its own, so that on a server that others use nobody's keys are met.
            environment = os.environ | lanes.formulas("figures", Path(root))
            environment |= {"DJANGO_SETTINGS_MODULE": "dashboard_project.multi_server_settings", "DJANGO_DEBUG": "0"}
            prefix = f"figures_{os.getpid()}_{number}"
            environment |= {"CACHE_URL": redis_url, "CACHE_KEY_PREFIX": prefix, "CACHE_TIMEOUT": "60"}

            def run(*words, **more):
                command = [sys.executable, "-m", "chat.tests.product_list_figures", *words]
                done = subprocess.run(command, env=environment | more, check=True, stdout=subprocess.PIPE, text=True)
                return done.stdout

            run("--fill", str(number))
            for backend in backends:
                milliseconds, queries, megabytes = run("--load", CACHE_BACKEND=backend).split()[-3:]
                print(f"{number:8}  {backend:7}  {milliseconds:>6}  {queries:>7}  {megabytes:>6}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--load"]:
            load_pages()
        case ["--fill", number]:
            fill(int(number))
        case [] | [_]:
            figures(sys.argv[1] if len(sys.argv) > 1 else "")
        case _:
            sys.exit(__doc__)
