"""One browser on several instances of the example: logs in on the first, visits the others, and comes back.

    browser.py ROUNDS PASSWORD_FILE BASE_URL...      prints in how many rounds the login was lost

Its cookies are kept by host and path, as in every browser: the port does not matter. Standard library only.
"""

import http.cookiejar
import json
import re
import sys
import urllib.parse
import urllib.request

rounds, password_file, first, *others = sys.argv[1:]
with open(password_file) as file:
    password = file.read().strip()


def one_round():
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def get(url):
        return browser.open(url, timeout=20).read().decode()

    page = first + "/login/?next=/whoami/"
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', get(page)).group(1)
    fields = {"csrfmiddlewaretoken": token, "username": "admin", "password": password}
    request = urllib.request.Request(page, urllib.parse.urlencode(fields).encode(), {"Referer": page})
    assert json.loads(browser.open(request, timeout=20).read())["user"] == "admin", "the login itself failed"
    for other in others:
        get(other + "/")
    try:
        return json.loads(get(first + "/whoami/"))["user"] != "admin"
    except json.JSONDecodeError:
        return True  # the login page


print(sum(one_round() for _ in range(int(rounds))))
