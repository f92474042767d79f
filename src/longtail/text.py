"""Makes text from elsewhere, such as names and paths, safe to show."""

import unicodedata

# Control characters, marks that reverse or hide text, and surrogates.
UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # which a spreadsheet takes for the start of a formula
DIRECTIONS = set(map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def printable(text: str) -> str:
    r"""The text with every character that could control a terminal or a page escaped.

    Examples:
        >>> print(printable("cat\x1b[31m\r\n" + chr(0x202E) + "Grauschnäpper"))
        cat\x1b[31m\r\n\u202eGrauschnäpper
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        ascii(letter)[1:-1]
        if unicodedata.category(letter) in UNSAFE or letter in DIRECTIONS
        else letter
        for letter in text
    )


def csv_cell(text: str) -> str:
    """The text as a CSV cell, after an apostrophe if a spreadsheet could take it for a formula.

    `from_csv_cell` removes it again.

    Examples:
        >>> csv_cell("=1+1"), csv_cell("cat"), csv_cell("'-x")
        ("'=1+1", 'cat', "''-x")
    """
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def from_csv_cell(cell: str) -> str:
    """The text of a cell that `csv_cell` wrote.

    Examples:
        >>> [from_csv_cell(csv_cell(text)) for text in ("=1+1", "cat", "'-x", "'cat'")]
        ['=1+1', 'cat', "'-x", "'cat'"]
    """
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'").startswith(FORMULA) else cell
