"""manage.py clear_cache --type=all|django|session: the settings page's clearing, from a shell."""

import os

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from chat import audit, clearing


class Command(BaseCommand):
    help = "Clears this instance's cache, its sessions, or both."

    def add_arguments(self, parser):
        parser.add_argument("--type", choices=list(clearing.KINDS), default="all")

    def handle(self, **options):
        kind, instance = options["type"], settings.INSTANCE_NAME
        cleared = clearing.clear(kind)
        keys = "all" if cleared.keys is None else cleared.keys
        out_of_reach = clearing.in_process_memory(kind)
        result = f"keys={keys} sessions={cleared.sessions}" + (" server's memory not reached" if out_of_reach else "")
        audit.record(f"uid {os.getuid()}", f"clear {kind}", result)
        if out_of_reach:
            # Started by hand, with the name alone: the instance that runs may cache elsewhere.
            assumed = "" if os.environ.get("CACHE_BACKEND") else (
                "CACHE_BACKEND is not set in this shell, so LocMem is assumed; "
                f'`eval "$(laneway env {instance})"` brings the lane here. '
            )
            raise CommandError(
                f"{assumed}{instance} keeps cached values in the server's own memory, which no other process can empty: "
                f"they are still there, cached logins too (session rows deleted: {cleared.sessions}). "
                f"Use `laneway cache clear {instance}`, or restart it: `laneway restart {instance}`."
            )
        if settings.LANE.cache_backend == "dummy":
            self.stdout.write(f"{instance}: the dummy cache keeps nothing, so there are no keys to clear")
            keys = 0
        self.stdout.write(f"{instance}: cleared {kind}: keys {keys}, sessions {cleared.sessions}")
