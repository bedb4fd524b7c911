"""Text of PDF files, made here by hand as ISO 32000-1 says: an object table, pages, and one font."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.distillation.pdf_text import pdf_text


def pdf_file(*pages: list[str], title: str = "") -> bytes:
    """A file with these lines on its pages."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(count))
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Count {count} /Kids [{kids}] >>"]
    bodies.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for i, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj 0 -14 Td\n" for line in lines)
        stream = f"BT /F1 12 Tf 72 720 Td\n{shown}ET"
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        bodies.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    bodies.append(f"<< /Title ({title}) >>")
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(bodies) + 1
    return (
        out
        + f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R /Info "
        f"{size - 1} 0 R >>\nstartxref\n{len(out)}\n%%EOF\n".encode()
    )


def test_pages_lines_and_title() -> None:
    title, text = pdf_text(
        pdf_file(["The spin-", "dle turns.", "Next line."], ["Page two."], title="A manual")
    )
    assert title == "A manual"
    assert text == "The spindle turns.\nNext line.\n\nPage two.\n"


def test_running_titles_and_page_numbers_are_left_out() -> None:
    pages = [["Manual 2.9", f"Body number {i}.", "says more", "and more", f"- {i} -"] for i in range(6)]
    text = pdf_text(pdf_file(*pages))[1]
    assert "Manual" not in text
    assert not re.search(r"- \d -", text)
    assert text.count("and more") == 6 or text.count("says more") == 6


def test_files_that_are_no_pdf_or_cut_give_a_reason() -> None:
    whole = pdf_file(["text"])
    for content in (b"", b"%PDF-1.4\n", b"MZ" + whole[500:]):
        with pytest.raises(ValueError, match="it is not a PDF"):
            pdf_text(content)


@given(st.integers(0, 900), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_gives_text_or_a_reason(place: int, junk: bytes) -> None:
    whole = pdf_file(["some text"], ["more"])
    with suppress(ValueError):
        pdf_text(whole[:place] + junk + whole[place + len(junk) :])
