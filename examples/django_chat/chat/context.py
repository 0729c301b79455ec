"""What every template knows."""

from django.conf import settings


def instance(request):
    return {"instance": settings.INSTANCE_NAME}
