"""Text from elsewhere, such as names and paths, made safe to show."""

import unicodedata

# Control characters, which a terminal obeys; marks that reverse or hide text; half characters.
UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the start of one
DIRECTIONS = set(map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def printable(text: str) -> str:
    r"""The text with every character that could steer a terminal or a page spelt out.

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
    """The text as a cell that no spreadsheet takes for a formula: an apostrophe before it.

    `from_csv_cell` takes it off again.

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
