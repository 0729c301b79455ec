"""seed_demo may run again and again."""

from io import StringIO
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import TestCase

from chat.models import Product


class SeedDemo(TestCase):
    path = Path(settings.SECRET_KEY_FILE).with_name("staff_password")

    def seed(self, *options):
        output = StringIO()
        call_command("seed_demo", *options, stdout=output)
        return output.getvalue()

    def test_twice_is_as_once(self):
        outputs = [self.seed()]
        password = self.path.read_text().strip()
        outputs.append(self.seed())
        self.assertEqual(self.path.read_text().strip(), password)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual((Product.objects.count(), User.objects.count()), (6, 1))
        self.assertTrue(self.client.login(username="admin", password=password))
        for output in outputs:
            self.assertIn(str(self.path), output)
            self.assertNotIn(password, output)

    def test_an_existing_account_is_left_alone(self):
        User.objects.create_user("admin", password="kendi parolam")
        self.seed()
        admin = User.objects.get()
        self.assertTrue(admin.check_password("kendi parolam"))
        self.assertFalse(admin.is_staff)

    def test_a_changed_price_is_left_alone(self):
        self.seed()
        Product.objects.update(price=1)
        self.seed()
        self.assertEqual(set(Product.objects.values_list("price", flat=True)), {1})

    def test_account_only(self):
        self.seed("--no-products")
        self.assertEqual((Product.objects.count(), User.objects.filter(is_staff=True).count()), (0, 1))
