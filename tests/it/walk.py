"""Walks the example as a browser would: logs in, looks, clears. Standard library only.

    walk.py BASE_URL PASSWORD_FILE STEP...    with steps: login, list:TEXT (the product list shows it), no:TEXT
                                              (it does not), clear:KIND (through the settings page), cookies,
                                              upload (a file too large for memory)
"""

import http.cookiejar
import re
import sys
import urllib.parse
import urllib.request

base, password_file, *steps = sys.argv[1:]
jar = http.cookiejar.CookieJar()
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))


def get(path):
    return browser.open(base + path, timeout=20).read().decode()


def post(path, **fields):
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', get(path)).group(1)
    data = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **fields}).encode()
    return browser.open(urllib.request.Request(base + path, data, {"Referer": base + path}), timeout=20).read().decode()


for step in steps:
    verb, _, text = step.partition(":")
    if verb == "login":
        with open(password_file) as file:
            post("/login/?next=/whoami/", username="admin", password=file.read().strip())
        assert '"user": "admin"' in get("/whoami/"), get("/whoami/")
    elif verb == "list":
        assert text in get("/"), f"{text!r} is not in {get('/')}"
    elif verb == "no":
        assert text not in get("/"), f"{text!r} is in {get('/')}"
    elif verb == "clear":
        post("/settings/", kind=text, confirm="on")
    elif verb == "upload":
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', get("/login/")).group(1)
        parts = ['Content-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n' + token]
        parts.append('Content-Disposition: form-data; name="file"; filename="large"\r\n\r\n' + "x" * 3_000_000)
        body = "".join("--limit\r\n%s\r\n" % part for part in parts) + "--limit--\r\n"
        headers = {"Referer": base + "/login/", "Content-Type": "multipart/form-data; boundary=limit"}
        # The form lacks a name, so it is shown again; until then the file has been in TMPDIR.
        assert browser.open(urllib.request.Request(base + "/login/", body.encode(), headers), timeout=20).status == 200
    elif verb == "cookies":
        print(" ".join(sorted(cookie.name for cookie in jar)))
    else:
        sys.exit(f"no such step: {step}")
