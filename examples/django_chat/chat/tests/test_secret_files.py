"""Secrets that are made once."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.test import SimpleTestCase

from dashboard_project.secret_files import read_or_make


class SecretFiles(SimpleTestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.path = Path(place.name) / "secrets" / "key"

    def test_made_once_long_and_private(self):
        secret = read_or_make(self.path)
        self.assertGreaterEqual(len(secret), 50)
        self.assertEqual(read_or_make(self.path), secret)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.path.parent.stat().st_mode & 0o777, 0o700)

    def test_many_at_once_agree(self):
        with ThreadPoolExecutor(16) as pool:
            secrets = set(pool.map(read_or_make, [self.path] * 64))
        self.assertEqual(len(secrets), 1)
        self.assertEqual(os.listdir(self.path.parent), ["key"])

    def test_a_link_is_not_followed(self):
        self.path.parent.mkdir()
        target = self.path.parent / "target"
        target.write_text("planted")
        self.path.symlink_to(target)
        with self.assertRaises(OSError):
            read_or_make(self.path)
        self.path.unlink()
        self.path.symlink_to("nowhere")
        with self.assertRaises(OSError):
            read_or_make(self.path)

    def test_an_empty_file_is_no_secret(self):
        self.path.parent.mkdir()
        self.path.touch()
        with self.assertRaisesMessage(ValueError, "is empty"):
            read_or_make(self.path)
