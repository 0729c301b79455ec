"""Tests of the example: python manage.py test."""
