"""What a document may be and what its reading may cost. Pure, and imported by the process that reads."""

from typing import Final

BYTES_MAX: Final = 10 * 1024 * 1024
DOCUMENTS_MAX: Final = 20
"""Of one application."""
PAGES_MAX: Final = 20
PIXELS_MAX: Final = 40_000_000
"""Of a picture, as it says itself before it is decoded: a phone's with room to spare."""
CHARACTERS_MAX: Final = 200_000
"""Of the text of a document that is kept."""
MEMORY_MAX_BYTES: Final = 512 * 1024 * 1024
"""Address space. The libraries map half of it; a picture of PIXELS_MAX with transparency takes 160 MB."""
CPU_MAX_S: Final = 60
"""A page takes a quarter of a second; noise of PIXELS_MAX twenty."""
WALL_MAX_S: Final = 180.0
"""However busy the machine is."""
