"""A folder of pages on localhost, and a browser's page that notes what goes wrong."""

import threading
from contextlib import contextmanager

from efflab.publishing.site.server import make_server

PHONE, DESK = dict(width=390, height=844), dict(width=1280, height=900)


@contextmanager
def serving(folder):
    """The address, ending in "/", of a server of `folder`."""
    with make_server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def opened(chromium, home, **settings):
    """A page; at the end its console was silent and nothing but `home` was asked."""
    context = chromium.new_context(**settings)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(f"{page.url}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))

    def note(request):
        if not request.url.startswith((home, "data:", "blob:")):
            wrong.append(f"{page.url} asked {request.url}")

    context.on("request", note)
    yield page
    context.close()
    assert wrong == []
