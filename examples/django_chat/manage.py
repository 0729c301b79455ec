#!/usr/bin/env python
"""Django's command line for this project."""

import os
import sys

SETTINGS = "DJANGO_SETTINGS_MODULE"

if __name__ == "__main__":
    if sys.argv[1:2] == ["test"]:
        # Even inside a lane (`laneway exec`) the tests must not touch that lane's files.
        os.environ[SETTINGS] = "dashboard_project.test_settings"
    os.environ.setdefault(SETTINGS, "dashboard_project.multi_server_settings")

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
