"""Pictures that a request gives the address of: of data always, of the web if that is allowed. Never a file."""

from __future__ import annotations

import io
import ipaddress
import socket
from typing import TYPE_CHECKING

import httpx2

from mmgen.errors import MmgenError, UsageError
from mmgen.inputs.images import download, open_image, read_image

if TYPE_CHECKING:
    from PIL import Image


def open_url(url: str, *, from_web: bool) -> Image.Image:
    """Open the picture at an address.

    Args:
        from_web: http(s) addresses are fetched, but none that leads to this machine or its network.

    Raises:
        MmgenError: it is no such address, or no picture.
    """
    kind = url.partition(":")[0].lower()
    if kind == "data":
        return open_image(url)
    if kind not in ("http", "https"):
        raise UsageError("image_url is no address of data or of the web", "as in data:image/png;base64,iVBORw0…")
    if not from_web:
        raise UsageError("this server fetches no pictures", "send the data: address of the picture itself")
    return read_image(io.BytesIO(download(url, _Public())), "the picture")


class _Public(httpx2.HTTPTransport):
    """Asks only what the whole internet can; redirects come through here, too.

    As the very address that was checked is asked, a name that leads elsewhere a moment later makes no difference.
    """

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask at the address that a name has now."""
        url = request.url
        try:
            found = socket.getaddrinfo(url.host, url.port or url.scheme, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as failure:
            raise MmgenError(f"{url.host} is not known", "check the address") from failure
        addresses = [str(each[4][0]) for each in found]
        if not all(is_public(address) for address in addresses):
            raise UsageError(f"{url.host} is not on the public internet", "send the picture itself")
        pinned = httpx2.Request(
            request.method,
            url.copy_with(host=addresses[0]),
            headers=request.headers,  # with the name as Host
            extensions={**request.extensions, "sni_hostname": url.host},
        )
        response = super().handle_request(pinned)
        if not response.has_redirect_location:
            return response
        response.close()  # what stands beside the new address is of no use, however long
        return httpx2.Response(response.status_code, headers={"Location": response.headers["Location"]})


def is_public(address: str) -> bool:
    """Whether an address is the same everywhere, and of one machine."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = (getattr(found, "ipv4_mapped", None), getattr(found, "sixtofour", None))
    return found.is_global and not found.is_multicast and all(each is None or each.is_global for each in inner)
