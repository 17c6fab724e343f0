"""XMP packets (ISO 16684-1): what is said of a picture, within its file or beside it. Standard library only."""

from __future__ import annotations

import html

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" {}</rdf:Description>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>
"""


def made(note: str) -> bytes:
    """Say how a picture was made; `codes.note_of` reads it."""
    said = html.escape(note, quote=False)
    return _PACKET.format(f'xmlns:mmgen="urn:mmgen:1"><mmgen:record>{said}</mmgen:record>').encode()


def described(words: str) -> bytes:
    """Describe a picture in words, where programs for photos look: dc:description."""
    said = html.escape(words, quote=False)
    return _PACKET.format(
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
        f'<rdf:li xml:lang="x-default">{said}</rdf:li></rdf:Alt></dc:description>'
    ).encode()
