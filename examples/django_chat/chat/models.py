"""Tables: products, chat messages, and the one row that the health check overwrites."""

from django.conf import settings
from django.db import models
from django.utils.timezone import localtime


class Product(models.Model):
    name = models.CharField(max_length=100, unique=True)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return self.name


class Message(models.Model):
    KEPT = 200  # older ones are dropped
    LONGEST = 500

    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    text = models.CharField(max_length=LONGEST)
    sent_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return f"{self.author}: {self.text}"

    @classmethod
    def post(cls, author, text):
        message = cls.objects.create(author=author, text=text[: cls.LONGEST])
        oldest = cls.objects.order_by("-pk").values_list("pk", flat=True)[cls.KEPT - 1 : cls.KEPT].first()
        if oldest is not None:
            cls.objects.filter(pk__lt=oldest).delete()
        return message

    @classmethod
    def latest(cls, count=50, after=0):
        newest = cls.objects.select_related("author").filter(pk__gt=after).order_by("-pk")[:count]
        return [message.as_dict() for message in reversed(newest)]

    def as_dict(self):
        return {
            "id": self.pk,
            "author": self.author.get_username(),
            "text": self.text,
            "time": localtime(self.sent_at).strftime("%H:%M"),
        }


class HealthMark(models.Model):
    """Never more than the row with pk 1."""

    written_at = models.DateTimeField(auto_now=True)
