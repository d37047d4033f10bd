"""The command ``voice2face app``."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from contextlib import suppress
from pathlib import Path

from voice2face.commands.options import add_pipeline_options, number_argument
from voice2face.errors import AppError
from voice2face.fast_import import import_pipeline

HIGHEST_PORT = 65_535
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MOST_CONNECTIONS = 64
SECONDS_TO_FINISH = 2
EXAMPLES = """\
examples:
  voice2face app                         serves http://127.0.0.1:7860/ to this machine's browsers
  voice2face app --port 0                on any free port, which is printed
  voice2face app --host 0.0.0.0          for everybody who can reach this machine: there is no
                                         password and no encryption
  voice2face app --host 0.0.0.0 --certificate cert.pem --key key.pem
                                         over HTTPS, which browsers want before they let a phone's
                                         microphone be used; recordings can be chosen without it

Recordings and portraits stay in memory while a visitor is served and are then forgotten. No other
connection is opened than the page's own, except to fetch a --model from the Hub.
"""


def build_parser() -> argparse.ArgumentParser:
    """Declare the command."""
    parser = argparse.ArgumentParser(
        prog="voice2face app",
        description="Serve a web page that records or takes a voice and draws four portraits.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host",
        type=host_argument,
        default="127.0.0.1",
        help="address to listen at (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        type=number_argument(int, 0, HIGHEST_PORT),
        default=7860,
        help="port to listen at (default: %(default)s)",
    )
    add_pipeline_options(parser, "--checkpoint")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="PEM file, for HTTPS")
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key of the certificate")
    return parser


def host_argument(word: str) -> str:
    """The address that a command line names.

    Raises:
        argparse.ArgumentTypeError: it names none, which sockets take for every address.
    """
    if not word:
        raise argparse.ArgumentTypeError("an empty address; leave it out, or say 0.0.0.0 for all")
    return word


def run(arguments: list[str]) -> None:
    """Parse the command line and serve the page until interrupted.

    Raises:
        AppError: the extra is not installed, or the page cannot be served there.
    """
    options = build_parser().parse_args(arguments)
    if options.key is not None and options.certificate is None:
        raise AppError("--key is of a certificate; say which: --certificate FILE")
    try:
        import uvicorn

        import_pipeline()
        from voice2face.app import create_app
        from voice2face.app.page_server import ImpatientProtocol, PageServer
    except ImportError as error:
        raise AppError(f"the web page needs {error.name}: pip install 'voice2face[app]'") from error

    from voice2face.pipeline import Voice2FacePipeline

    with listen(options.host, options.port) as listener:
        pipe = Voice2FacePipeline.from_pretrained(options.model, device=options.device)
        app = create_app(pipe, allowed_hosts=allowed_hosts(options.host))
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            log_level="warning",
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
        )
        try:
            config.load()
        except OSError as error:
            key = "" if options.key is None else f" and --key {options.key}"
            raise AppError(
                f"--certificate {options.certificate}{key} cannot be used ({error}); give PEM files"
            ) from error
        print(f"{address(listener, options)}  (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            PageServer(config, app.state.queue).run(sockets=[listener])
        print("ended, nothing was left behind")


def listen(host: str, port: int) -> socket.socket:
    """Open the page's socket.

    Raises:
        AppError: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, TypeError) as error:  # the last of what is no host's name
        raise AppError(
            f"{host} port {port} cannot be listened at ({error}); choose another --host or --port"
        ) from error


def allowed_hosts(host: str) -> tuple[str, ...]:
    """The names a page that listens at ``host`` may be called by: its own, if it is private."""
    try:
        private = ipaddress.ip_address(host).is_loopback
    except ValueError:
        private = host == "localhost"
    return (*LOOPBACK_NAMES, host) if private else ("*",)


def address(listener: socket.socket, options: argparse.Namespace) -> str:
    """The page's address, to be opened in a browser."""
    scheme = "https" if options.certificate else "http"
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}/"
