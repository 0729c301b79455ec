"""Asks Django for the settings that it has in each lane. JSON in, a line of JSON out per lane; no secret leaves it.

Django is loaded once; each lane is a fork with that lane's environment, which loads the settings and no app.
"""
import fcntl
import hashlib
import json
import os
import re
import sys
import tempfile


def find_module():
    """As manage.py would."""
    if "DJANGO_SETTINGS_MODULE" not in os.environ and os.path.exists("manage.py"):
        with open("manage.py", encoding="utf-8") as file:
            found = re.search(r"""DJANGO_SETTINGS_MODULE['"]\s*,\s*['"]([\w.]+)['"]""", file.read())
        if found:
            os.environ["DJANGO_SETTINGS_MODULE"] = found[1]


def without_password(text):
    return re.sub(r"//[^/@]*@", "//", str(text))


def path(value):
    return os.path.abspath(value) if value else None


def look(salt):
    from django.conf import settings

    def database(one):
        return {
            "engine": one.get("ENGINE", ""),
            "name": str(one.get("NAME") or ""),
            "host": str(one.get("HOST") or ""),
            "port": str(one.get("PORT") or ""),
            "conn_max_age": one.get("CONN_MAX_AGE", 0),
            "options": sorted(one.get("OPTIONS") or {}),
        }

    def cache(one):
        place = one.get("LOCATION") or ""
        places = re.split("[;,]", place) if isinstance(place, str) else list(place)
        return {
            "backend": one.get("BACKEND", ""),
            "location": [without_password(each) for each in places],
            "key_prefix": str(one.get("KEY_PREFIX") or ""),
            "options": sorted(one.get("OPTIONS") or {}),
        }

    secret = settings.SECRET_KEY
    secret = secret if isinstance(secret, bytes) else str(secret).encode()
    return {
        "databases": {alias: database(one) for alias, one in settings.DATABASES.items()},
        "caches": {alias: cache(one) for alias, one in settings.CACHES.items()},
        "session_cookie": settings.SESSION_COOKIE_NAME,
        "csrf_cookie": "" if settings.CSRF_USE_SESSIONS else settings.CSRF_COOKIE_NAME,
        "static_root": path(settings.STATIC_ROOT),
        "media_root": path(settings.MEDIA_ROOT),
        "temporary": path(tempfile.gettempdir()),
        "upload_temporary": path(settings.FILE_UPLOAD_TEMP_DIR),
        "secret_fingerprint": hashlib.sha256(salt.encode() + secret).hexdigest(),
        "secret_length": len(secret),
        "secret_distinct": len(set(secret)),
        "asgi_runserver": any(app.split(".")[0] in ("daphne", "channels") for app in settings.INSTALLED_APPS),
    }


def answer(lane, salt, lock):
    os.environ.clear()
    os.environ.update(lane["environment"])
    if lane["settings"]:
        os.environ["DJANGO_SETTINGS_MODULE"] = lane["settings"]
    find_module()
    try:
        said = {"settings": look(salt)}
    except BaseException as error:
        said = {"error": "%s: %s" % (type(error).__name__, str(error).partition("\n")[0][:200])}
    say({"name": lane["name"], **said}, lock)


def say(what, lock):
    """One line at a time: a long one is no single write into a pipe."""
    fcntl.lockf(lock, fcntl.LOCK_EX)
    with open(OUT, "w", closefd=False) as out:
        out.write(json.dumps(what) + "\n")
    fcntl.lockf(lock, fcntl.LOCK_UN)


def main():
    question = json.load(sys.stdin)
    lock = os.memfd_create("turn")
    sys.path[:0] = question["path"]
    os.umask(0o077)
    try:
        import django.conf  # noqa: F401
        import django.conf.global_settings  # noqa: F401
    except ImportError as error:
        say({"error": str(error)}, lock)
        return
    running = []
    for lane in question["lanes"]:
        child = os.fork()
        if child == 0:
            answer(lane, question["salt"], lock)
            os._exit(0)
        running.append(child)
        if len(running) == 4:
            os.waitpid(running.pop(0), 0)
    for child in running:
        os.waitpid(child, 0)


# What settings print is not the answer.
OUT = os.dup(1)
os.dup2(2, 1)
main()
