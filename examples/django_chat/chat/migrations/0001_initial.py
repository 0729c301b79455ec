"""The first tables."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

ID = models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


class Migration(migrations.Migration):
    initial = True

    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        migrations.CreateModel(
            name="HealthMark",
            fields=[("id", ID), ("written_at", models.DateTimeField(auto_now=True))],
        ),
        migrations.CreateModel(
            name="Product",
            fields=[
                ("id", ID.clone()),
                ("name", models.CharField(max_length=100, unique=True)),
                ("price", models.DecimalField(decimal_places=2, max_digits=10)),
                ("stock", models.PositiveIntegerField(default=0)),
            ],
            options={"ordering": ["pk"]},
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                ("id", ID.clone()),
                ("text", models.CharField(max_length=500)),
                ("sent_at", models.DateTimeField(auto_now_add=True)),
                (
                    "author",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL),
                ),
            ],
            options={"ordering": ["pk"]},
        ),
    ]
