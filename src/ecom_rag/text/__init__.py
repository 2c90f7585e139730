"""Texts: how they become terms, what makes two of them the same, evasive spellings, near duplicates, safe printing."""
