"""The formulas, and what the settings make of the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings
from django.test import SimpleTestCase

from dashboard_project import lane
from dashboard_project.caching import caches
from dashboard_project.databases import databases

ROOT = Path("/srv/shop")


def read(**environ):
    return lane.read(environ, ROOT)


class Formulas(SimpleTestCase):
    def test_everything_follows_from_the_name(self):
        facts = lane.formulas("chat_api", ROOT)
        state = "/srv/shop/var/chat_api"
        self.assertEqual(
            facts,
            {
                "DJANGO_SERVER_INSTANCE": "chat_api",
                "INSTANCE_NAME": "chat_api",
                "DATABASE_URL": f"sqlite:///{state}/db_chat_api.sqlite3",
                "DATABASE_NAME": f"{state}/db_chat_api.sqlite3",
                "CACHE_BACKEND": "locmem",
                "CACHE_KEY_PREFIX": "context7_chat_api",
                "CACHE_LOCATION": "context7-cache-chat_api",
                "CACHE_TIMEOUT": "1800",
                "SESSION_COOKIE_NAME": "sessionid_chat_api",
                "CSRF_COOKIE_NAME": "csrftoken_chat_api",
                "STATIC_ROOT": f"{state}/staticfiles_chat_api",
                "MEDIA_ROOT": f"{state}/media_chat_api",
                "TMPDIR": f"{state}/tmp",
                "LOG_DIR": f"{state}/log",
                "ACCESS_LOG": f"{state}/log/access.log",
                "SECRET_KEY_FILE": f"{state}/secrets/secret_key",
                "CHANNEL_LAYER_PREFIX": "context7_chat_api",
                "CELERY_DEFAULT_QUEUE": "context7_chat_api",
            },
        )

    def test_two_instances_share_nothing(self):
        one, other = lane.formulas("chat_main", ROOT), lane.formulas("chat_mail", ROOT)
        same = {name for name in one if one[name] == other[name]}
        self.assertEqual(same, {"CACHE_BACKEND", "CACHE_TIMEOUT"})

    def test_timeouts_of_the_three(self):
        named = {name: lane.formulas(name)["CACHE_TIMEOUT"] for name in ("chat_main", "chat_websocket", "sube_ankara")}
        self.assertEqual(named, {"chat_main": "3600", "chat_websocket": "300", "sube_ankara": "3600"})

    def test_a_name_that_leaves_the_folder_is_refused(self):
        for name in ("../etc", "Chat", "", "a" * 33, "şube"):
            with self.subTest(name), self.assertRaises(ValueError):
                lane.formulas(name)

    def test_command_prints_them_without_looking_at_the_environment(self):
        run = subprocess.run(
            [sys.executable, "-m", "dashboard_project.lane", "chat_api"],
            cwd=settings.BASE_DIR,
            env={**os.environ, "CACHE_TIMEOUT": "7", "DJANGO_SERVER_INSTANCE": "other"},
            capture_output=True,
            check=True,
        )
        self.assertEqual(json.loads(run.stdout), lane.formulas("chat_api"))


class Environment(SimpleTestCase):
    def test_given_facts_win(self):
        facts = read(INSTANCE_NAME="chat_api", CACHE_TIMEOUT="7", STATIC_ROOT="/other", PORT="9")
        self.assertEqual(
            (facts.instance_name, facts.cache_timeout, facts.static_root, facts.port, facts.session_cookie_name),
            ("chat_api", "7", "/other", "9", "sessionid_chat_api"),
        )

    def test_sqlite(self):
        for environ in (
            {"DATABASE_URL": "sqlite:////data/a%20b/%C5%9Fube.sqlite3"},
            {"DATABASE_NAME": "/data/a b/şube.sqlite3"},
        ):
            with self.subTest(environ):
                default = databases(read(**environ))["default"]
                self.assertEqual(default["NAME"], "/data/a b/şube.sqlite3")
                self.assertEqual(default["OPTIONS"], {"timeout": 20, "transaction_mode": "IMMEDIATE"})

    def test_postgres(self):
        url = "postgres://ali:p%40ss%2Fw@db.example:5433/ignored"
        default = databases(read(DATABASE_URL=url, DATABASE_NAME="context7_erp_chat_main"))["default"]
        self.assertEqual(
            default,
            {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "context7_erp_chat_main",
                "USER": "ali",
                "PASSWORD": "p@ss/w",
                "HOST": "db.example",
                "PORT": "5433",
                "OPTIONS": {
                    "application_name": "context7_chat_main",
                    "pool": {"min_size": 1, "max_size": 5, "timeout": 1.5},
                },
                "CONN_HEALTH_CHECKS": True,
            },
        )

    def test_secrets_in_urls_are_not_shown(self):
        facts = read(DATABASE_URL="postgres://a:hush@h/d", CACHE_URL="redis://:hush@h/0")
        self.assertNotIn("hush", repr(facts))

    def test_unknown_database_and_cache_are_named(self):
        with self.assertRaisesMessage(ValueError, "'mysql'"):
            databases(read(DATABASE_URL="mysql://h/d"))
        with self.assertRaisesMessage(ValueError, "'memcached'"):
            caches(read(CACHE_BACKEND="memcached"))
        with self.assertRaisesMessage(ValueError, "CACHE_URL"):
            caches(read(CACHE_BACKEND="redis"))

    def test_caches(self):
        made = caches(read(CACHE_BACKEND="redis+locmem", CACHE_URL="redis://h/0", CACHE_TIMEOUT="5"))
        common = {"KEY_PREFIX": "context7_chat_main", "TIMEOUT": 5}
        backends = "django.core.cache.backends."
        self.assertEqual(
            made,
            {
                "default": {"BACKEND": backends + "redis.RedisCache", "LOCATION": "redis://h/0", **common},
                "local": {
                    "BACKEND": backends + "locmem.LocMemCache",
                    "LOCATION": "context7-cache-chat_main",
                    **common,
                },
            },
        )
        folder = caches(read(CACHE_BACKEND="file"))["default"]["LOCATION"]
        self.assertEqual(folder, "/srv/shop/var/chat_main/context7-cache-chat_main")

    def test_settings_of_a_real_start(self):
        """A process of its own, with another instance's environment, as a supervisor starts it."""
        place = Path(settings.LANE.log_dir).parent.parent.parent
        environ = {
            **os.environ,
            **lane.formulas("chat_api", place),
            "DJANGO_SERVER_INSTANCE": "chat_api",
            "DJANGO_SETTINGS_MODULE": "dashboard_project.multi_server_settings",
            "CACHE_BACKEND": "dummy",
            "DJANGO_DEBUG": "0",
            "DJANGO_ALLOWED_HOSTS": "shop.example, erp.example",
        }
        script = (
            "import json; from django.conf import settings as s; s.SECRET_KEY; "
            "print(json.dumps([s.DEBUG, s.ALLOWED_HOSTS, s.CACHES, str(s.DATABASES['default']['NAME']),"
            " s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME, s.STATIC_ROOT]))"
        )
        run = subprocess.run(
            [sys.executable, "-c", script], cwd=settings.BASE_DIR, env=environ, capture_output=True, check=True
        )
        debug, hosts, cache, database, session, csrf, static = json.loads(run.stdout)
        self.assertFalse(debug)
        self.assertEqual(hosts, ["127.0.0.1", "localhost", "[::1]", "shop.example", "erp.example"])
        self.assertEqual(cache["default"]["BACKEND"], "django.core.cache.backends.dummy.DummyCache")
        self.assertEqual(database, f"{place}/var/chat_api/db_chat_api.sqlite3")
        self.assertEqual((session, csrf), ("sessionid_chat_api", "csrftoken_chat_api"))
        self.assertTrue(Path(static).is_dir())
        secret = Path(environ["SECRET_KEY_FILE"])
        self.assertEqual(secret.stat().st_mode & 0o777, 0o600)
        self.assertEqual(secret.parent.stat().st_mode & 0o777, 0o700)
