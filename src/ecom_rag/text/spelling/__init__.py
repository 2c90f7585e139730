"""What a text sounds and looks like: codes under which an evasive spelling and the plain one are the same.

In: texts. Out: for each text three sequences of numbers, one a character. ``plain`` is the text as it is written; in
``sound`` Chinese characters of the same toneless reading are one number, in ``shape`` characters that look alike. The
latter two leave out symbols and spaces, join split characters and fold digits and letters that stand for each other.
"""

from ecom_rag.text.spelling.codes import CHANNELS, Codes, codes, with_words

__all__ = ["CHANNELS", "Codes", "codes", "with_words"]
