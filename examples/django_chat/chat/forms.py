"""The form of the settings page."""

from django import forms

from .clearing import KINDS


class ClearCacheForm(forms.Form):
    kind = forms.ChoiceField(label="Cache türü", choices=list(KINDS.items()))
    confirm = forms.BooleanField(label="Onaylıyorum", error_messages={"required": "Temizlemek için onaylayın."})
