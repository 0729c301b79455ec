"""manage.py seed_demo: six products and a staff account; may run any number of times, even at once."""

from decimal import Decimal
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core.management import call_command
from django.core.management.base import BaseCommand

from chat.models import Product
from dashboard_project.secret_files import read_or_make

PRODUCTS = [
    ("Çelik Dosya Dolabı", "4250.00", 12),
    ("Ergonomik Ofis Koltuğu", "6890.50", 8),
    ("Işıklı Masa Lambası", "749.90", 35),
    ("Kablosuz Barkod Okuyucu", "2199.00", 20),
    ("Şeffaf Koli Bandı", "38.75", 400),
    ("Termal Fiş Yazıcısı", "3475.00", 15),
]
STAFF = "admin"


class Command(BaseCommand):
    help = "Makes six products and the staff account 'admin', where they are missing."

    def add_arguments(self, parser):
        parser.add_argument("--no-products", action="store_true", help="only the account")

    def handle(self, **options):
        if settings.LANE.cache_backend == "database":
            call_command("createcachetable", verbosity=0)
        if not options["no_products"]:
            for name, price, stock in PRODUCTS:
                Product.objects.get_or_create(name=name, defaults={"price": Decimal(price), "stock": stock})
            self.stdout.write(f"{settings.INSTANCE_NAME}: {Product.objects.count()} products")
        self._staff_account()

    def _staff_account(self):
        path = Path(settings.SECRET_KEY_FILE).with_name("staff_password")
        users = get_user_model().objects
        if not users.filter(username=STAFF).exists():
            password = make_password(read_or_make(path))
            users.get_or_create(username=STAFF, defaults={"password": password, "is_staff": True})
        where = f"password in {path}" if path.exists() else f"{path} is missing: manage.py changepassword {STAFF}"
        self.stdout.write(f"{settings.INSTANCE_NAME}: staff account {STAFF}, {where}")
